//! Products of up to four legs, exactly: 512-bit unsigned integers with the two operations we need.
//!
//! Invariant: nothing is rounded and nothing overflows: a leg's factor is below 2^84 and at most four
//! legs, a threshold below 2^45 and a rate of 32 bits are multiplied, 413 bits in all.

/// An unsigned 512-bit integer, least significant limb first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct U512([u64; 8]);

impl U512 {
    /// One.
    pub const ONE: U512 = U512([1, 0, 0, 0, 0, 0, 0, 0]);

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
        let mut limbs = [0u64; 8];
        let mut carry: u128 = 0;
        for (idx, limb) in self.0.iter().enumerate() {
            let product = u128::from(*limb) * u128::from(factor) + carry;
            match limbs.get_mut(idx + shift) {
                Some(slot) => *slot = product as u64,
                None => assert!(product == 0, "four legs fit 512 bits"),
            }
            carry = product >> 64;
        }
        assert!(carry == 0, "four legs fit 512 bits");
        U512(limbs)
    }

    fn plus(self, other: U512) -> U512 {
        let mut limbs = [0u64; 8];
        let mut carry = false;
        for (idx, limb) in limbs.iter_mut().enumerate() {
            let (sum, first) = self.0[idx].overflowing_add(other.0[idx]);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first | second;
        }
        assert!(!carry, "four legs fit 512 bits");
        U512(limbs)
    }
}

impl PartialOrd for U512 {
    fn partial_cmp(&self, other: &U512) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for U512 {
    fn cmp(&self, other: &U512) -> core::cmp::Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn big(value: U512) -> BigUint {
        let bytes: Vec<u8> = value.0.iter().flat_map(|limb| limb.to_le_bytes()).collect();
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
