//! Values as bytes in a client's hands: DUMP and RESTORE.
//!
//! The payload is Kvorum's own; Redis's, which changes with its versions, is refused.
//!
//! ```text
//! ┌────┬───────────┬─────────┬──────┬──────────────────────────────────┐
//! │ KV │ format u8 │ type u8 │ body │ checksum u64: XXH3 of what is left │
//! └────┴───────────┴─────────┴──────┴──────────────────────────────────┘
//! string  0   its bytes
//! list    1   count │ value …
//! hash    2   count │ field, value, end …      end: 0, or the moment in ms and 1
//! set     3   count │ member …
//! zset    4   count │ member, score f64 …
//! ```
//!
//! Counts and lengths are varints, and every string has its length before it. A key's time to live
//! and its history are not part of its value: what is restored is a new write.
//!
//! Invariant: what reads is what DUMP wrote of some value: no collection is empty, no name comes
//! twice, and no score is NaN.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::base::hash::HashSeed;
use crate::base::time::UnixMs;
use crate::base::wire::{Cursor, Put, WireError};
use crate::value::change::{Change, Expire};
use crate::value::element::Element;
use crate::value::view::{Kind, View, WrongType};

use super::fault::{Fault, answer};
use super::hyperloglog::whole_string;
use super::number::{integer, is};
use super::spec::Call;

const MAGIC: [u8; 2] = *b"KV";
const FORMAT: u8 = 1;
const CHECKSUM_SIZE: usize = 8;

/// Why RESTORE was refused. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// The key is there, and REPLACE was not said.
    Busy,
    /// A time to live below zero.
    Ttl,
    /// An IDLETIME below zero.
    IdleTime,
    /// A FREQ that no counter of Redis has.
    Frequency,
    /// Cut, altered, made up, or of a format that this version does not know.
    Payload,
    /// Whole, but of no value.
    Format,
}

impl RestoreError {
    /// The error line, without the leading `-`.
    pub const fn text(self) -> &'static str {
        match self {
            RestoreError::Busy => "BUSYKEY Target key name already exists.",
            RestoreError::Ttl => "ERR Invalid TTL value, must be >= 0",
            RestoreError::IdleTime => "ERR Invalid IDLETIME value, must be >= 0",
            RestoreError::Frequency => "ERR Invalid FREQ value, must be >= 0 and <= 255",
            RestoreError::Payload => "ERR DUMP payload version or checksum are wrong",
            RestoreError::Format => "ERR Bad data format",
        }
    }
}

impl From<RestoreError> for Fault<'_> {
    fn from(error: RestoreError) -> Self {
        Fault::Restore(error)
    }
}

/// What a payload holds.
#[derive(Clone, PartialEq, Debug)]
enum Value<'a> {
    String(&'a [u8]),
    Collection(Kind, Vec<Element<'a>>),
}

const fn tag(kind: Kind) -> u8 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Hash => 2,
        Kind::Set => 3,
        Kind::Zset => 4,
    }
}

/// The checksum of a payload's other bytes. It is no secret: it finds accidents, not forgers.
fn checksum(bytes: &[u8]) -> u64 {
    HashSeed(0).key(bytes)
}

/// The payload with its checksum.
pub(super) fn seal(mut payload: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(&payload);
    payload.put_u64(checksum);
    payload
}

fn begin(kind: Kind) -> Vec<u8> {
    vec![MAGIC[0], MAGIC[1], FORMAT, tag(kind)]
}

/// The payload of what `view` shows of `key`.
fn dump(call: &Call<'_, '_>, key: &[u8], view: &View<'_>) -> Result<Vec<u8>, WrongType> {
    if view.kind == Kind::String {
        let mut out = begin(Kind::String);
        out.put(&whole_string(call.views, key, call.now, view)?);
        return Ok(seal(out));
    }
    let fields = view.fields(view.kind)?;
    let mut out = begin(view.kind);
    out.put_varint(fields.len() as u64);
    for element in fields.iter() {
        if view.kind != Kind::List {
            out.put_bytes(&element.name);
        }
        match view.kind {
            Kind::Hash => {
                out.put_bytes(&element.value);
                out.put_varint(element.expire_at.map_or(0, |at| at.0.saturating_add(1)));
            }
            Kind::List => out.put_bytes(&element.value),
            Kind::Zset => out.put_u64(element.score.to_bits()),
            Kind::Set | Kind::String => {}
        }
    }
    Ok(seal(out))
}

/// Reads a payload.
fn read(payload: &[u8]) -> Result<Value<'_>, RestoreError> {
    let (rest, sum) = payload.split_last_chunk::<CHECKSUM_SIZE>().ok_or(RestoreError::Payload)?;
    let body = match *rest {
        [a, b, FORMAT, ref body @ ..] if [a, b] == MAGIC => body,
        _ => return Err(RestoreError::Payload),
    };
    if u64::from_le_bytes(*sum) != checksum(rest) {
        return Err(RestoreError::Payload);
    }
    let (tag, body) = body.split_first().ok_or(RestoreError::Format)?;
    let kind = match tag {
        0 => return Ok(Value::String(body)),
        1 => Kind::List,
        2 => Kind::Hash,
        3 => Kind::Set,
        4 => Kind::Zset,
        _ => return Err(RestoreError::Format),
    };
    let elements = read_elements(kind, body).map_err(|_| RestoreError::Format)?;
    Ok(Value::Collection(kind, elements))
}

fn read_elements(kind: Kind, body: &[u8]) -> Result<Vec<Element<'_>>, WireError> {
    let mut cursor = Cursor::new(body);
    let count = cursor.varint()?;
    // No element takes less than a byte, so nothing is set aside that is not there.
    if count == 0 || count > body.len() as u64 {
        return Err(WireError::Malformed("count"));
    }
    let mut elements = Vec::with_capacity(count as usize);
    let mut names = HashSet::new();
    for _ in 0..count {
        let name = if kind == Kind::List { &[][..] } else { cursor.bytes()? };
        if kind != Kind::List && !names.insert(name) {
            return Err(WireError::Malformed("name"));
        }
        elements.push(match kind {
            Kind::Hash => {
                let field = Element::field(name, cursor.bytes()?);
                let expire_at = cursor.varint()?.checked_sub(1).map(UnixMs);
                Element { expire_at, ..field }
            }
            Kind::List => Element::item(cursor.bytes()?),
            Kind::Zset => {
                let score = f64::from_bits(cursor.u64()?);
                if score.is_nan() {
                    return Err(WireError::Malformed("score"));
                }
                Element::scored(name, score)
            }
            Kind::Set | Kind::String => Element::member(name),
        });
    }
    cursor.end()?;
    Ok(elements)
}

/// `DUMP key`.
pub fn dump_key(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        match call.views.view(key) {
            Some(view) => {
                let payload = dump(call, key, &view)?;
                call.reply.bulk(&payload);
            }
            None => call.reply.null(),
        }
        Ok(())
    });
}

/// The options of RESTORE.
#[derive(Clone, Copy, Default)]
struct Options {
    replace: bool,
    absolute: bool,
}

impl Options {
    /// IDLETIME and FREQ are read, and one excludes the other, but use is noted in another way here.
    fn parse<'a>(mut words: &[&'a [u8]]) -> Result<Options, Fault<'a>> {
        let mut options = Options::default();
        let (mut idle, mut frequency) = (false, false);
        loop {
            words = match *words {
                [] => return Ok(options),
                [word, ref rest @ ..] if is(word, "REPLACE") => {
                    options.replace = true;
                    rest
                }
                [word, ref rest @ ..] if is(word, "ABSTTL") => {
                    options.absolute = true;
                    rest
                }
                [word, seconds, ref rest @ ..] if is(word, "IDLETIME") && !frequency => {
                    if integer(seconds)? < 0 {
                        return Err(RestoreError::IdleTime.into());
                    }
                    idle = true;
                    rest
                }
                [word, number, ref rest @ ..] if is(word, "FREQ") && !idle => {
                    if !(0..=255).contains(&integer(number)?) {
                        return Err(RestoreError::Frequency.into());
                    }
                    frequency = true;
                    rest
                }
                _ => return Err(Fault::Syntax),
            };
        }
    }
}

/// `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ number]`. What has expired
/// already is not made, but a key that it would have replaced is gone.
pub fn restore(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        let key = call.args[1];
        let options = Options::parse(&call.args[4..])?;
        let is_there = call.views.view(key).is_some();
        if is_there && !options.replace {
            return Err(RestoreError::Busy.into());
        }
        let ttl = u64::try_from(integer(call.args[2])?).map_err(|_| RestoreError::Ttl)?;
        let value = read(call.args[3])?;
        let expire_at = match ttl {
            0 => None,
            _ if options.absolute => Some(UnixMs(ttl)),
            _ => Some(UnixMs(call.now.0.saturating_add(ttl))),
        };
        let is_over = |at: Option<UnixMs>| at.is_some_and(|at| at <= call.now);
        let change = match value {
            _ if is_over(expire_at) => Change::Delete,
            Value::String(string) => {
                let expire = expire_at.map_or(Expire::Clear, Expire::At);
                Change::Put { value: Cow::Borrowed(string), expire }
            }
            Value::Collection(kind, mut elements) => {
                elements.retain(|element| !is_over(element.expire_at));
                Change::make(kind, expire_at, elements)
            }
        };
        if is_there || change != Change::Delete {
            call.changes.push((key, change));
        }
        call.reply.ok();
        Ok(())
    });
}
