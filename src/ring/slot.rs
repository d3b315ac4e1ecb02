//! From a key to its slot, from a slot to its vnode.
//!
//! Slots are Redis Cluster's, so that cluster-aware clients compute the same: CRC16/XMODEM of
//! the key modulo 16,384, or of the text between the first `{` and the next `}` if there is any.
//! A vnode is a contiguous run of slots; the number of vnodes is a power of two that never
//! changes in the life of a cluster.
//!
//! ```text
//!  slots   0 ……… 63 │ 64 ……… 127 │ … │ 16,320 ……… 16,383
//!  vnodes     0     │     1      │ … │        255          (256 vnodes)
//! ```

use std::ops::Range;

use crc::{CRC_16_XMODEM, Crc, Table};

use crate::base::id::{Slot, VnodeId};
use crate::base::limits::{SLOTS, VNODES_MAX};

static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// Clusters with more members than this begin with [`VNODES_MANY`].
const MEMBERS_FEW_MAX: usize = 16;

/// Vnodes of a small cluster: with 16 members each holds 48 of the 768 replicas, so one vnode
/// more or less is 2 % of a member's load.
pub const VNODES_FEW: u16 = 256;

/// Vnodes of a large cluster.
pub const VNODES_MANY: u16 = 1_024;

const _: () = assert!(SLOTS.is_power_of_two() && VNODES_MANY <= VNODES_MAX);

/// The slot of `key`.
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(CRC16.checksum(hashed_part(key)) & (SLOTS - 1))
}

/// The part of a key that decides its slot: what stands between the first `{` and the first `}`
/// after it, or the whole key if there is no such pair or nothing between.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// Whether a cluster may have `count` vnodes: a power of two from 1 to [`VNODES_MAX`].
pub const fn is_vnode_count(count: u16) -> bool {
    count.is_power_of_two() && count <= VNODES_MAX
}

/// How many vnodes a new cluster of `members` should have.
pub const fn vnode_count_for(members: usize) -> u16 {
    if members > MEMBERS_FEW_MAX { VNODES_MANY } else { VNODES_FEW }
}

/// The vnode of `slot` among `count` vnodes (a power of two).
pub const fn vnode_of(slot: Slot, count: u16) -> VnodeId {
    debug_assert!(is_vnode_count(count));
    VnodeId(slot.0 >> (SLOTS.trailing_zeros() - count.trailing_zeros()))
}

/// The slots of `vnode` among `count` vnodes (a power of two).
pub const fn slots_of(vnode: VnodeId, count: u16) -> Range<u16> {
    debug_assert!(is_vnode_count(count));
    let run = SLOTS / count;
    vnode.0 * run..(vnode.0 + 1) * run
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// CRC16/XMODEM by its definition, one bit at a time.
    fn crc16_by_bits(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0u16, |crc, &byte| {
            (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            })
        })
    }

    #[test]
    fn known_slots() {
        // As `CLUSTER KEYSLOT` of Redis 7 answers.
        for (key, slot) in [
            ("", 0),
            ("123456789", 12_739),
            ("foo", 12_182),
            ("bar", 5_061),
            ("hello", 866),
            ("somekey", 11_058),
            ("foo{hash_tag}", 2_515),
            ("bar{hash_tag}", 2_515),
        ] {
            assert_eq!(slot_of(key.as_bytes()), Slot(slot), "{key}");
        }
    }

    #[test]
    fn tags() {
        let same = |a: &str, b: &str| slot_of(a.as_bytes()) == slot_of(b.as_bytes());
        assert!(same("{user1000}.following", "{user1000}.followers"));
        assert!(same("{user1000}.following", "user1000"));
        assert_eq!(hashed_part(b"foo{}{bar}"), b"foo{}{bar}", "an empty tag is none");
        assert_eq!(hashed_part(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hashed_part(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hashed_part(b"foo}{bar"), b"foo}{bar");
        assert_eq!(hashed_part(b"}{a}"), b"a");
    }

    #[test]
    fn runs_cover_all_slots_once() {
        let mut count = 1;
        while count <= VNODES_MAX {
            let mut next = 0;
            for vnode in (0..count).map(VnodeId) {
                let run = slots_of(vnode, count);
                assert_eq!(run.start, next);
                assert_eq!(vnode_of(Slot(run.start), count), vnode);
                assert_eq!(vnode_of(Slot(run.end - 1), count), vnode);
                next = run.end;
            }
            assert_eq!(next, SLOTS);
            count *= 2;
        }
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_the_definition(key: Vec<u8>) {
            let slot = Slot(crc16_by_bits(hashed_part(&key)) % SLOTS);
            prop_assert_eq!(slot_of(&key), slot);
        }
    }
}
