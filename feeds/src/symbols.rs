//! From a venue's symbol to the slot of its book.
//!
//! Invariant: fixed at construction and never grown by what a venue sends; a look-up neither allocates
//! nor depends on how many symbols there are.

/// A hash table from symbols to slots, probed in line.
#[derive(Clone, Debug)]
pub struct Symbols {
    names: Vec<Box<[u8]>>,
    /// Index into `names` plus one; 0 is empty. At most half full.
    table: Vec<u32>,
}

impl Symbols {
    /// Returns a table that maps each name to its position. Of equal names the first counts.
    #[must_use]
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Symbols {
        let names: Vec<Box<[u8]>> = names.map(|name| name.as_bytes().into()).collect();
        let mut table = vec![0; (names.len() * 2).next_power_of_two().max(8)];
        for (idx, name) in names.iter().enumerate() {
            let mut at = hash(name) & (table.len() - 1);
            while table[at] != 0 && names[table[at] as usize - 1] != *name {
                at = (at + 1) & (table.len() - 1);
            }
            if table[at] == 0 {
                table[at] = idx as u32 + 1;
            }
        }
        Symbols { names, table }
    }

    /// Returns the slot of a symbol that is ours.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        let mask = self.table.len() - 1;
        let mut at = hash(name) & mask;
        loop {
            let idx = (self.table[at] as usize).checked_sub(1)?;
            if *self.names[idx] == *name {
                return Some(idx);
            }
            at = (at + 1) & mask;
        }
    }
}

/// FNV-1a: symbols are short and not chosen by an attacker (the table is ours).
#[inline]
fn hash(name: &[u8]) -> usize {
    name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_and_nothing_else() {
        let names: Vec<String> = (0..500).map(|i| format!("SYM{i}USDT")).collect();
        let symbols = Symbols::new(names.iter().map(String::as_str));
        for (idx, name) in names.iter().enumerate() {
            assert_eq!(symbols.find(name.as_bytes()), Some(idx));
        }
        assert_eq!(symbols.find(b"SYM500USDT"), None);
        assert_eq!(symbols.find(b""), None);
        assert_eq!(Symbols::new(["A", "A"].into_iter()).find(b"A"), Some(0));
        assert_eq!(Symbols::new([].into_iter()).find(b"A"), None);
    }
}
