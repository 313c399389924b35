//! Socket options and the stamped read: the one file of this crate with unsafe code.
//!
//! Invariant: every pointer given to the kernel is to memory that outlives the call, with its true
//! length. Bytes the kernel did not write are never read.

#![allow(unsafe_code, reason = "recvmsg with control messages has no safe wrapper here")]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::RawFd;

/// Asks the kernel to stamp what is received (`SO_TIMESTAMPNS`, CLOCK_REALTIME).
///
/// On TCP there is one stamp a read: that of the last segment the read returned bytes of, so it is an
/// upper bound of the arrival of the earlier ones (`reference/rings.md` 3.1, T2).
pub fn stamp_receives(fd: RawFd) -> io::Result<()> {
    set_int(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Makes the next close a reset: nothing lingers, the peer sees it at once.
pub fn reset_on_close(fd: RawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let bytes = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: `linger` lives through the call and `bytes` is its size.
    let result = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), bytes)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for acknowledgements without delay and a larger receive buffer, as far as the host allows.
pub fn tune(fd: RawFd) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20)?;
    // A dead peer behind a silent path is found by the kernel too, not only by our timers.
    set_int(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 10)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 5)?;
    set_int(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)
}

fn set_int(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let bytes = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `bytes` is its size.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Room for one `timespec` control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; 64]);

/// Reads without blocking; returns the bytes and the kernel's stamp in UNIX ns, where it gave one.
pub fn recv_stamped(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<i64>)> {
    let mut control = Control([MaybeUninit::uninit(); 64]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: every pointer in `message` is to a local above or to `buffer`, with its true length.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel wrote `msg_controllen` bytes of well-formed control messages.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if first.is_null() {
        return Ok((received as usize, None));
    }
    // SAFETY: not null, so the kernel wrote a whole header there.
    let header = unsafe { first.read_unaligned() };
    let stamped =
        header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_TIMESTAMPNS;
    let whole = size_of::<libc::cmsghdr>() + size_of::<libc::timespec>() <= header.cmsg_len;
    if !stamped || !whole {
        return Ok((received as usize, None));
    }
    // SAFETY: `cmsg_len` says that a whole `timespec` follows the header.
    let time = unsafe { libc::CMSG_DATA(first).cast::<libc::timespec>().read_unaligned() };
    let ns = time.tv_sec.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(time.tv_nsec));
    Ok((received as usize, ns))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn reads_carry_the_kernels_stamp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        let fd = receiver.as_raw_fd();
        stamp_receives(fd).unwrap();
        tune(fd).unwrap();
        let mut buffer = [0u8; 16];
        let empty = recv_stamped(fd, &mut buffer).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        // The kernel turns stamping on in the background: the first messages may come without a stamp.
        let (before, stamp) = (0..1_000)
            .find_map(|_| {
                let before =
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
                sender.write_all(b"hello").unwrap();
                let (bytes, stamp) = loop {
                    match recv_stamped(fd, &mut buffer) {
                        Ok(got) => break got,
                        Err(err) => assert_eq!(err.kind(), io::ErrorKind::WouldBlock),
                    }
                };
                assert_eq!(&buffer[..bytes], b"hello");
                std::thread::sleep(std::time::Duration::from_millis(1));
                stamp.map(|stamp| (before, stamp))
            })
            .expect("the kernel stamps");
        // A stamp may also be made at the read.
        assert!((before - 1_000_000_000..before + 10_000_000_000).contains(&stamp));
        reset_on_close(fd).unwrap();
    }
}
