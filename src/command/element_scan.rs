//! HSCAN, SSCAN and ZSCAN: a collection, a part at a time.
//!
//! The cursor is a place in the order of the elements' keyed hashes. Every node has the same order
//! and none remembers the scan, so that any node goes on with it. An element that is there all the
//! while is met; one that comes or goes meanwhile may be. Redis answers a small collection whole,
//! whatever COUNT says; here COUNT counts for every size.

use crate::resp::double;
use crate::value::view::Kind;

use super::collection::elements;
use super::fault::{Fault, answer};
use super::glob;
use super::number::{integer, is};
use super::scan::SCAN_COUNT_DEFAULT;
use super::spec::Call;

/// What a scan is asked for.
struct Wish<'a> {
    pattern: Option<&'a [u8]>,
    count: usize,
    values: bool,
}

impl<'a> Wish<'a> {
    fn parse(words: &[&'a [u8]], kind: Kind) -> Result<Wish<'a>, Fault<'a>> {
        let mut wish = Wish { pattern: None, count: SCAN_COUNT_DEFAULT, values: true };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if is(word, "NOVALUES") {
                if kind != Kind::Hash {
                    return Err(Fault::NoValues);
                }
                wish.values = false;
            } else if is(word, "COUNT") {
                let count = integer(words.next().ok_or(Fault::Syntax)?)?;
                wish.count = usize::try_from(count).unwrap_or(0);
                if wish.count == 0 {
                    return Err(Fault::Syntax);
                }
            } else if is(word, "MATCH") {
                let pattern = *words.next().ok_or(Fault::Syntax)?;
                wish.pattern = (pattern != b"*").then_some(pattern);
            } else {
                return Err(Fault::Syntax);
            }
        }
        Ok(wish)
    }
}

/// Cursors are bare digits.
fn cursor<'a>(text: &[u8]) -> Result<u64, Fault<'a>> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = if digits { std::str::from_utf8(text).ok() } else { None };
    text.and_then(|text| text.parse().ok()).ok_or(Fault::Cursor)
}

/// Redis looks at the key before the options: of a key that is not there they may be anything.
fn scan(call: &mut Call<'_, '_>, kind: Kind) {
    answer(call, |call| {
        let cursor = cursor(call.args[2])?;
        let view = call.views.view(call.args[1]);
        let fields = elements(view.as_ref(), kind)?;
        if view.is_none() {
            call.reply.array(2);
            call.reply.bulk(b"0");
            call.reply.array(0);
            return Ok(());
        }
        let wish = Wish::parse(&call.args[3..], kind)?;
        let (mut met, next) = fields.scan(cursor, wish.count);
        if let Some(pattern) = wish.pattern {
            met.retain(|element| glob::matches(pattern, &element.name));
        }
        let with_values = kind != Kind::Set && wish.values;
        call.reply.array(2);
        call.reply.bulk(next.to_string().as_bytes());
        call.reply.array(met.len() * (1 + usize::from(with_values)));
        for element in &met {
            call.reply.bulk(&element.name);
            match kind {
                // Text in both protocols.
                Kind::Zset => call.reply.bulk(&double::text(element.score)),
                _ if with_values => call.reply.bulk(&element.value),
                _ => {}
            }
        }
        Ok(())
    });
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]`.
pub fn hscan(call: &mut Call<'_, '_>) {
    scan(call, Kind::Hash);
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`.
pub fn sscan(call: &mut Call<'_, '_>) {
    scan(call, Kind::Set);
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`.
pub fn zscan(call: &mut Call<'_, '_>) {
    scan(call, Kind::Zset);
}
