//! SORT and SORT_RO: the elements of a list, set or sorted set in the order of numbers or texts,
//! their own or those that other keys hold.
//!
//! ```text
//!  SORT {u}ids BY {u}weight_* GET {u}name_*->full LIMIT 0 10 DESC
//!                     └ of each element: the number to sort by, and what is answered
//! ```
//!
//! BY and GET name keys that the request does not, made of a pattern and an element. Redis Cluster
//! denies both. Here they are allowed if the pattern's tag says that all such keys lie in the slot
//! of the sorted key: then the vnode's lock covers them, and they are read as they are here, whatever
//! R is. Texts are compared by their bytes, as Redis does in the C locale.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::base::float::Wide;
use crate::ring::slot::slot_of;
use crate::value::change::Change;
use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::{Kind, View, WrongType};

use super::fault::{Fault, answer};
use super::number::{integer, is};
use super::spec::Call;

/// The pattern that stands for the element itself.
const ITSELF: &[u8] = b"#";

/// The options of a SORT.
#[derive(Default)]
struct Options<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    /// The first that is answered, and how many.
    limit: Option<(i64, i64)>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(key: &[u8], words: &[&'a [u8]], may_store: bool) -> Result<Options<'a>, Fault<'a>> {
        let mut options = Options::default();
        let mut words = words;
        while let [word, rest @ ..] = words {
            words = match rest {
                _ if is(word, "ASC") => {
                    options.descending = false;
                    rest
                }
                _ if is(word, "DESC") => {
                    options.descending = true;
                    rest
                }
                _ if is(word, "ALPHA") => {
                    options.alpha = true;
                    rest
                }
                [start, count, rest @ ..] if is(word, "LIMIT") => {
                    options.limit = Some((integer(start)?, integer(count)?));
                    rest
                }
                [target, rest @ ..] if may_store && is(word, "STORE") => {
                    options.store = Some(target);
                    rest
                }
                [pattern, rest @ ..] if is(word, "BY") => {
                    if pattern.contains(&b'*') && !stays_in_slot(pattern, key) {
                        return Err(Fault::SortElsewhere("BY"));
                    }
                    options.by = Some(pattern);
                    rest
                }
                [pattern, rest @ ..] if is(word, "GET") => {
                    if *pattern != ITSELF && !stays_in_slot(pattern, key) {
                        return Err(Fault::SortElsewhere("GET"));
                    }
                    options.get.push(pattern);
                    rest
                }
                _ => return Err(Fault::Syntax),
            };
        }
        Ok(options)
    }

    /// Whether BY names no keys, so that the elements stay in their order.
    fn keeps_order(&self) -> bool {
        self.by.is_some_and(|pattern| !pattern.contains(&b'*'))
    }

    /// The places, of `len`, that are answered.
    fn places(&self, len: usize) -> Range<usize> {
        let (start, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(start).unwrap_or(0).min(len);
        let count = usize::try_from(count).unwrap_or(len).min(len - start);
        start..start + count
    }
}

/// Whether every key that a pattern makes lies in the slot of `key`: its tag is closed before what
/// is put in, or nothing is.
fn stays_in_slot(pattern: &[u8], key: &[u8]) -> bool {
    let fixed = match pattern.iter().position(|&byte| byte == b'*') {
        Some(star) => {
            let fixed = &pattern[..star];
            let open = fixed.iter().position(|&byte| byte == b'{');
            let tag = open.map_or(&[][..], |open| &fixed[open + 1..]);
            if tag.iter().position(|&byte| byte == b'}').is_none_or(|close| close == 0) {
                return false;
            }
            fixed
        }
        None => pattern,
    };
    slot_of(fixed) == slot_of(key)
}

/// What a pattern finds for an element: the element itself, a string, or a field of a hash.
fn found<'e>(call: &Call<'_, '_>, pattern: &[u8], element: &'e [u8]) -> Option<Cow<'e, [u8]>> {
    if pattern == ITSELF {
        return Some(Cow::Borrowed(element));
    }
    let star = pattern.iter().position(|&byte| byte == b'*')?;
    let (before, behind) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = behind.windows(2).position(|pair| pair == b"->");
    let (behind, field) = match arrow {
        Some(at) if at + 2 < behind.len() => (&behind[..at], Some(&behind[at + 2..])),
        _ => (behind, None),
    };
    let key = [before, element, behind].concat();
    let view = call.views.view(&key)?;
    let value = match field {
        Some(field) => view.fields(Kind::Hash).ok()?.get(field)?.value.into_owned(),
        None => view.string().ok()?.into_owned(),
    };
    Some(Cow::Owned(value))
}

/// A number as `strtod` reads a whole C string: blanks before it are passed over, and nothing at
/// all is zero.
fn number<'a>(text: &[u8]) -> Result<f64, Fault<'a>> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Ok(0.0);
    }
    let blanks = text.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b);
    let text = &text[blanks.count()..];
    Wide::parse(text).map(|wide| wide.hi).ok_or(Fault::SortScore)
}

/// The elements of a collection that can be sorted, in its own order.
fn fields_of<'v, 'b>(view: &'v View<'b>) -> Result<Cow<'v, Fields<'b>>, WrongType> {
    match view.kind {
        kind @ (Kind::List | Kind::Set | Kind::Zset) => view.fields(kind),
        Kind::String | Kind::Hash => Err(WrongType),
    }
}

/// What clients see of an element.
fn shown<'e>(fields: &Fields<'_>, element: Element<'e>) -> Cow<'e, [u8]> {
    if fields.kind() == Kind::List { element.value } else { element.name }
}

/// Those elements of `fields`, as they stand there, that are answered.
fn unsorted<'f>(fields: &'f Fields<'_>, options: &Options<'_>) -> Vec<Cow<'f, [u8]>> {
    let (len, places) = (fields.len(), options.places(fields.len()));
    let elements = if options.descending && fields.kind() != Kind::Set {
        fields.range_back(len - places.end..len - places.start)
    } else {
        fields.range(places)
    };
    elements.map(|element| shown(fields, element)).collect()
}

/// What an element is sorted by.
enum Weight<'e> {
    Number(f64),
    /// Its own text.
    Own,
    /// That of another key, if there is one.
    Text(Option<Cow<'e, [u8]>>),
}

impl<'e> Weight<'e> {
    fn of<'a>(
        call: &Call<'a, '_>,
        options: &Options<'_>,
        element: &'e [u8],
    ) -> Result<Weight<'e>, Fault<'a>> {
        let text = match options.by {
            Some(pattern) => found(call, pattern, element),
            None if options.alpha => return Ok(Weight::Own),
            None => Some(Cow::Borrowed(element)),
        };
        Ok(match text {
            text if options.alpha => Weight::Text(text),
            Some(text) => Weight::Number(number(&text)?),
            None => Weight::Number(0.0),
        })
    }
}

/// The order of two elements: equal numbers are ordered by the elements' texts.
fn order(a: &(&[u8], Weight<'_>), b: &(&[u8], Weight<'_>)) -> Ordering {
    match (&a.1, &b.1) {
        (Weight::Number(left), Weight::Number(right)) => {
            let numbers = left.partial_cmp(right).unwrap_or(Ordering::Equal);
            numbers.then_with(|| a.0.cmp(b.0))
        }
        (Weight::Text(left), Weight::Text(right)) => left.cmp(right),
        _ => a.0.cmp(b.0),
    }
}

/// The elements that are answered, in order.
fn sorted<'f, 'a>(
    call: &Call<'a, '_>,
    fields: &'f Fields<'_>,
    options: &Options<'_>,
) -> Result<Vec<Cow<'f, [u8]>>, Fault<'a>> {
    let elements: Vec<Cow<'f, [u8]>> =
        fields.iter().map(|element| shown(fields, element)).collect();
    let weights = elements.iter().map(|element| {
        let element = &element[..];
        Ok((element, Weight::of(call, options, element)?))
    });
    let mut weighed: Vec<(&[u8], Weight<'_>)> = weights.collect::<Result<_, Fault<'a>>>()?;
    if options.descending {
        weighed.sort_by(|a, b| order(b, a));
    } else {
        weighed.sort_by(order);
    }
    let places = options.places(weighed.len());
    Ok(weighed[places].iter().map(|(element, _)| Cow::Owned(element.to_vec())).collect())
}

fn run<'a>(call: &mut Call<'a, '_>, may_store: bool) -> Result<(), Fault<'a>> {
    let key = call.args[1];
    let mut options = Options::parse(key, &call.args[2..], may_store)?;
    let view = call.views.view(key);
    let fields = view.as_ref().map(fields_of).transpose()?;
    let chosen = match &fields {
        None => Vec::new(),
        Some(fields) if options.keeps_order() => {
            if fields.kind() == Kind::Set && options.store.is_some() {
                // A set has no order of its own that could be stored.
                options.by = None;
                options.alpha = true;
                sorted(call, fields, &options)?
            } else {
                unsorted(fields, &options)
            }
        }
        Some(fields) => sorted(call, fields, &options)?,
    };
    match options.store {
        Some(target) => store(call, target, &options, &chosen),
        None => reply(call, &options, &chosen),
    }
    Ok(())
}

fn reply(call: &mut Call<'_, '_>, options: &Options<'_>, chosen: &[Cow<'_, [u8]>]) {
    call.reply.array(chosen.len() * options.get.len().max(1));
    for element in chosen {
        if options.get.is_empty() {
            call.reply.bulk(element);
        }
        for pattern in &options.get {
            match found(call, pattern, element) {
                Some(value) => call.reply.bulk(&value),
                None => call.reply.null(),
            }
        }
    }
}

fn store<'a>(
    call: &mut Call<'a, '_>,
    target: &'a [u8],
    options: &Options<'_>,
    chosen: &[Cow<'_, [u8]>],
) {
    let mut items: Vec<Element<'a>> = Vec::new();
    for element in chosen {
        if options.get.is_empty() {
            items.push(Element::item(element.to_vec()));
        }
        for pattern in &options.get {
            let value = found(call, pattern, element).unwrap_or_default();
            items.push(Element::item(value.into_owned()));
        }
    }
    call.reply.integer(items.len() as i64);
    if !items.is_empty() || call.views.view(target).is_some() {
        call.changes.push((target, Change::make(Kind::List, None, items)));
    }
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC | DESC] [ALPHA] [STORE key]`.
pub fn sort(call: &mut Call<'_, '_>) {
    answer(call, |call| run(call, true));
}

/// The same without STORE.
pub fn sort_ro(call: &mut Call<'_, '_>) {
    answer(call, |call| run(call, false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_where_the_keys_of_a_pattern_lie() {
        for (pattern, key, stays) in [
            (&b"{u}w_*"[..], &b"{u}ids"[..], true),
            (b"w_{u}*->f", b"u", true),
            (b"w_*", b"w_*", false),
            (b"w_*{u}", b"u", false),
            (b"{}{u}*", b"u", false),
            (b"{u*}", b"u", false),
            (b"{v}*", b"u", false),
            (b"u", b"{u}ids", true),
            (b"v", b"{u}ids", false),
        ] {
            let text = String::from_utf8_lossy(pattern);
            assert_eq!(stays_in_slot(pattern, key), stays, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_c_does() {
        for (text, expected) in [
            (&b""[..], Ok(0.0)),
            (b" 1.5", Ok(1.5)),
            (b"-inf", Ok(f64::NEG_INFINITY)),
            (b"1\0x", Ok(1.0)),
            (b"1 ", Err(Fault::SortScore)),
            (b" ", Err(Fault::SortScore)),
            (b"nan", Err(Fault::SortScore)),
            (b"1e999", Err(Fault::SortScore)),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn limits_are_cut_to_what_is_there() {
        let places =
            |start, count| Options { limit: Some((start, count)), ..Options::default() }.places(5);
        assert_eq!(places(1, 2), 1..3);
        assert_eq!(places(-3, 2), 0..2);
        assert_eq!(places(3, 9), 3..5);
        assert_eq!(places(2, -1), 2..5);
        assert_eq!(places(7, 1), 5..5);
        assert_eq!(places(1, 0), 1..1);
    }
}
