//! Products of up to four legs, exactly: 512-bit unsigned integers with the two operations we need.
//!
//! Invariant: nothing is rounded and nothing overflows: a leg's factor is below 2^84 and at most four
//! legs, a threshold below 2^45 and a rate of 32 bits are multiplied, 413 bits in all.

/// An unsigned 512-bit integer, least significant limb first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct U512 {
    limbs: [u64; 8],
    /// Limbs in use: those above are 0, the highest of these is not.
    len: usize,
}

impl U512 {
    /// One.
    pub const ONE: U512 = U512 { limbs: [1, 0, 0, 0, 0, 0, 0, 0], len: 1 };

    /// Returns the product with a 128-bit factor.
    ///
    /// # Panics
    /// Where the product does not fit: the bound in the module's invariant was broken.
    #[must_use]
    pub fn times(self, factor: u128) -> U512 {
        let low = self.times_limb(factor as u64, 0);
        let high = (factor >> 64) as u64;
        if high == 0 { low } else { low.plus(self.times_limb(high, 1)) }
    }

    fn times_limb(self, factor: u64, shift: usize) -> U512 {
        let (mut limbs, mut len) = ([0u64; 8], 0);
        if factor != 0 && self.len != 0 {
            let mut carry: u128 = 0;
            for (idx, limb) in self.limbs[..self.len].iter().enumerate() {
                let product = u128::from(*limb) * u128::from(factor) + carry;
                *limbs.get_mut(idx + shift).expect("four legs fit 512 bits") = product as u64;
                carry = product >> 64;
            }
            len = self.len + shift;
            if carry != 0 {
                *limbs.get_mut(len).expect("four legs fit 512 bits") = carry as u64;
                len += 1;
            }
        }
        U512 { limbs, len }
    }

    fn plus(self, other: U512) -> U512 {
        let mut limbs = [0u64; 8];
        let mut len = self.len.max(other.len);
        let mut carry = false;
        for (idx, limb) in limbs[..len].iter_mut().enumerate() {
            let (sum, first) = self.limbs[idx].overflowing_add(other.limbs[idx]);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first | second;
        }
        if carry {
            *limbs.get_mut(len).expect("four legs fit 512 bits") = 1;
            len += 1;
        }
        U512 { limbs, len }
    }
}

impl PartialOrd for U512 {
    fn partial_cmp(&self, other: &U512) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for U512 {
    fn cmp(&self, other: &U512) -> core::cmp::Ordering {
        self.len.cmp(&other.len).then_with(|| {
            let (ours, theirs) = (&self.limbs[..self.len], &other.limbs[..other.len]);
            ours.iter().rev().cmp(theirs.iter().rev())
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn big(value: U512) -> BigUint {
        let bytes: Vec<u8> = value.limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        BigUint::from_bytes_le(&bytes)
    }

    proptest! {
        #[test]
        fn equals_big_integers(factors in proptest::collection::vec(0u128..1 << 84, 0..6), other in any::<u128>()) {
            let ours = factors.iter().fold(U512::ONE, |product, factor| product.times(*factor));
            let theirs = factors.iter().fold(BigUint::from(1u8), |product, factor| product * factor);
            prop_assert_eq!(big(ours), theirs.clone());
            let bound = U512::ONE.times(other);
            prop_assert_eq!(ours.cmp(&bound), theirs.cmp(&BigUint::from(other)));
        }
    }
}
