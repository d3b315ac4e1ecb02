//! Blocks give back what they were given, in as many bytes as they say.

use proptest::prelude::*;

use crate::base::hash::Digest;
use crate::base::id::Actor;
use crate::base::time::{Dot, Hlc, UnixMs};
use crate::value::packed::Packed;
use crate::value::plain::Plain;

use super::block::{Block, ColdEntry, ColdPlain, Form, KINDS};
use super::footprint::{Footprint, size_class};
use super::place::Place;

fn plain_of<'a>(
    hlc: u64,
    actor: u32,
    n: u32,
    expire: Option<u64>,
    raw_len: Option<u32>,
    bytes: &'a [u8],
) -> Plain<'a> {
    Plain {
        dot: Dot::new(Hlc(hlc), Actor(actor)),
        n,
        expire_at: expire.map(UnixMs),
        value: Packed {
            raw_len: raw_len.unwrap_or(bytes.len() as u32),
            lz4: raw_len.is_some(),
            bytes,
        },
    }
}

#[test]
fn a_small_string_costs_sixteen_bytes_more_than_key_and_value() {
    let plain = plain_of(1, 1, 1, None, None, &[7; 64]);
    assert_eq!(Block::plain(0, &[1; 16], &plain, None).size(), 16 + 64 + 16);
    assert_eq!(size_of::<Block>(), 7);
    let located = Block::plain(0, &[1; 16], &plain, Some(Place::default()));
    assert_eq!(located.size(), 16 + 64 + 24);
    let cold = Block::cold_plain(0, &[1; 16], &plain, 64, Place::default());
    assert_eq!(cold.size(), 16 + 24);
    assert_eq!(located.footprint(), Footprint { taken: 112, least: 48 });
    assert_eq!(cold.footprint(), Footprint { taken: 48, least: 48 });
}

#[test]
fn size_classes_are_the_allocators() {
    let classes = [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512];
    for size in 1..=512 {
        let class = classes.into_iter().find(|class| *class >= size);
        assert_eq!(Some(size_class(size)), class, "{size}");
    }
    let large = [16 << 10, (16 << 10) + 1, 1 << 20, (1 << 20) + 1].map(size_class);
    assert_eq!(large, [16 << 10, 20 << 10, 1 << 20, 1280 << 10]);
}

#[test]
fn a_look_is_kept_until_it_is_taken_and_the_first_after_warming_does_not_count() {
    let plain = plain_of(1, 1, 1, None, None, b"v");
    let mut block = Block::plain(9, b"k", &plain, None).freshly_warmed();
    block.visit();
    assert!(!block.is_visited());
    block.visit();
    assert!(block.is_visited() && block.take_visited() && !block.take_visited());
    let mut block = block.freshly_warmed();
    assert!(block.take_visited() && !block.take_visited());
    block.visit();
    assert!(block.is_visited());
    assert_eq!((block.key(), block.form()), (&b"k"[..], Form::Plain(plain)));
}

proptest! {
    #[test]
    fn a_block_gives_back_what_it_was_given(
        hash: u64,
        key in proptest::collection::vec(any::<u8>(), 0..400),
        value in proptest::collection::vec(any::<u8>(), 0..600),
        other in proptest::collection::vec(any::<u8>(), 0..600),
        (hlc, actor, n) in any::<(u64, u32, u32)>(),
        small_n in 0u32..512,
        expire: Option<u64>,
        raw_len: Option<u32>,
        place in proptest::option::of(any::<(u32, u32)>()),
        (whole, shown, alive) in any::<(bool, bool, bool)>(),
        kind in 0usize..5,
    ) {
        let place = place.map(|(segment, offset)| Place { segment, offset });
        let plain = plain_of(hlc, actor, n, expire, raw_len, &value);
        let mut block = Block::plain(hash, &key, &plain, place);
        prop_assert!(block.is(hash, &key));
        prop_assert_eq!(block.tag(), (hash >> 56) as u8);
        prop_assert_eq!(block.form(), Form::Plain(plain));
        prop_assert_eq!((block.place(), block.is_whole()), (place, true));
        // In place when every length stays, untouched otherwise.
        let mut at = place;
        for (bytes, n) in [(&value, small_n), (&other, n)] {
            let next = plain_of(hlc ^ 5, actor ^ 3, n, expire.map(|e| e ^ 1), raw_len, bytes);
            let before = format!("{:?}", block.form());
            block.visit();
            let moved = Place { segment: n, offset: 7 };
            if block.overwrite(&next, moved) {
                prop_assert_eq!(block.form(), Form::Plain(next));
                at = at.map(|_| moved);
            } else {
                prop_assert_eq!(format!("{:?}", block.form()), before);
            }
            prop_assert_eq!(block.place(), at);
            prop_assert_eq!(block.key(), &key[..]);
        }
        let base = place.unwrap_or_default();
        let mut entry = Block::entry(hash, &key, &other, base, whole);
        prop_assert_eq!(entry.form(), Form::Entry(&other));
        prop_assert_eq!(entry.key(), &key[..]);
        prop_assert_eq!((entry.place(), entry.is_whole()), (Some(base), whole));
        let moved = Place { segment: n, offset: 9 };
        entry.settle(moved);
        prop_assert_eq!(entry.form(), Form::Entry(&other));
        prop_assert_eq!((entry.place(), entry.is_whole()), (Some(moved), true));

        let stub = Plain { value: Packed { bytes: &[], ..plain.value }, ..plain };
        let mut cold = Block::cold_plain(hash, &key, &plain, value.len(), base);
        let form = Form::ColdPlain(ColdPlain {
            plain: Plain { value: Packed { bytes: &[], ..stub.value }, dot: stub.dot, ..stub },
            len: value.len(),
        });
        prop_assert_eq!((cold.form(), cold.place()), (form, Some(base)));
        prop_assert!(cold.is_cold() && cold.is_whole() && cold.is(hash, &key));
        prop_assert!(!cold.overwrite(&plain, base));
        let taken = cold.footprint().taken;
        prop_assert_eq!(cold.footprint().least, taken);
        prop_assert!(block.is_cold() || block.footprint().least <= block.footprint().taken);

        let stub = ColdEntry {
            digest: Digest(u128::from(hlc) << 64 | 5),
            state_digest: Digest(u128::from(hash)),
            hlc_max: Hlc(hlc),
            kind: KINDS[kind],
            shown,
            alive,
            raw_len: n,
            expire_at: expire.map(UnixMs),
            len: other.len(),
        };
        let cold = Block::cold_entry(hash, &key, &stub, base);
        prop_assert_eq!((cold.form(), cold.place()), (Form::ColdEntry(stub), Some(base)));
        prop_assert!(cold.is_cold() && cold.is_whole() && cold.is(hash, &key));
        let least = entry.footprint().least;
        prop_assert!(cold.footprint().taken <= least || entry.footprint().taken == least);
    }
}
