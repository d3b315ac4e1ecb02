//! Chance for commands that draw elements: all of it comes from the one number of the call.
//!
//! Invariant: whoever draws gets the same elements from the same number, so a command that has to
//! be run again (because a value was on disk) or in a simulation decides alike.

use std::collections::HashSet;

/// A generator (splitmix64; Steele, Lea and Flood, 2014).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator that begins with `random`.
    pub const fn new(random: u64) -> Chance {
        Chance(random)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A place among `count`, each as likely as the others; 0 among none.
    pub const fn place(&mut self, count: usize) -> usize {
        ((self.draw() as u128 * count as u128) >> 64) as usize
    }

    /// `wanted` different places among `count`, in rising order: each set of places is as likely
    /// as the others. All of them if there are no more.
    ///
    /// The work goes with `wanted` alone (Floyd, in Bentley's *Programming pearls*, 1987).
    pub fn places(&mut self, count: usize, wanted: usize) -> Vec<usize> {
        if wanted >= count {
            return (0..count).collect();
        }
        let mut chosen = HashSet::with_capacity(wanted);
        for last in count - wanted..count {
            let place = self.place(last + 1);
            if !chosen.insert(place) {
                chosen.insert(last);
            }
        }
        let mut places: Vec<usize> = chosen.into_iter().collect();
        places.sort_unstable();
        places
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_are_different_in_order_and_there(
            random: u64,
            count in 0..300usize,
            wanted in 0..400usize,
        ) {
            let places = Chance::new(random).places(count, wanted);
            prop_assert_eq!(places.len(), wanted.min(count));
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(places.iter().all(|&place| place < count));
            prop_assert_eq!(Chance::new(random).places(count, wanted), places);
        }
    }

    #[test]
    fn every_place_and_every_pair_is_as_likely() {
        let mut chance = Chance::new(4);
        let (mut single, mut pairs) = ([0u32; 5], [[0u32; 5]; 5]);
        for _ in 0..20_000 {
            single[chance.place(5)] += 1;
            let pair = chance.places(5, 2);
            pairs[pair[0]][pair[1]] += 1;
        }
        // Five standard deviations of 20,000 draws.
        assert!(single.iter().all(|&met| met.abs_diff(4_000) < 283), "{single:?}");
        for (low, row) in pairs.iter().enumerate() {
            for (high, &met) in row.iter().enumerate() {
                let expected = if low < high { 2_000 } else { 0 };
                assert!(met.abs_diff(expected) < 213, "{low} {high}: {met}");
            }
        }
        assert_eq!(chance.place(0), 0);
    }
}
