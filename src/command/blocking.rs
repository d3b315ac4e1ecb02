//! What blocking commands say beside what they do at once: how long they wait, and for what.
//!
//! ```text
//!  BLPOP   a b 5          waits for lists at a, b
//!  BLMOVE  a b LEFT … 0   waits for a list at a, for ever
//!  BZMPOP  1.5 2 a b MIN  waits for sorted sets at a, b
//! ```
//!
//! A blocking command's function does what can be done at once. It answers a null, and changes
//! nothing, exactly if that is nothing ([`is_nothing`]); no other reply of such a command is null.

use std::time::Duration;

use crate::base::float::Wide;
use crate::base::time::UnixMs;
use crate::value::view::Kind;

use super::fault::Fault;
use super::flags::Flag;
use super::spec::Spec;

/// How long a wait that begins `now` may last; none: for ever.
///
/// # Errors
/// It is no number, lies below zero, or is more than a clock of milliseconds can show.
pub fn timeout<'a>(text: &[u8], now: UnixMs) -> Result<Option<Duration>, Fault<'a>> {
    let seconds = Wide::parse(text).ok_or(Fault::Timeout)?;
    let ms = (seconds.hi * 1000.0 + seconds.lo * 1000.0).ceil();
    if ms < 0.0 {
        return Err(Fault::NegativeTimeout);
    }
    if ms >= (i64::MAX as u64).saturating_sub(now.0) as f64 {
        return Err(Fault::LongTimeout);
    }
    Ok((ms > 0.0).then(|| Duration::from_millis(ms as u64)))
}

/// How long a blocking request, which was found to be well-formed, may wait.
pub fn patience(spec: &Spec, args: &[&[u8]]) -> Option<Duration> {
    let is_first = matches!(spec.name, "blmpop" | "bzmpop");
    let text = if is_first { args.get(1) } else { args.last() };
    text.and_then(|text| timeout(text, UnixMs(0)).ok().flatten())
}

/// What kind of key a blocking request waits for.
pub fn wanted(spec: &Spec) -> Kind {
    debug_assert!(spec.flags.has(Flag::Blocking), "{} does not wait", spec.name);
    if spec.name.starts_with("bz") { Kind::Zset } else { Kind::List }
}

/// The keys that a blocking request waits for: not those that it only writes.
pub fn awaited<'a>(spec: &Spec, args: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let places = spec.keys_of(args).into_iter().flatten();
    let only_source = matches!(spec.name, "blmove" | "brpoplpush");
    places.take(if only_source { 1 } else { usize::MAX }).map(|place| args[place]).collect()
}

/// Whether a blocking command's reply says that there was nothing at once.
pub fn is_nothing(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table::resolve;
    use crate::resp::reply::{Protocol, Reply};

    fn args(request: &str) -> Vec<&[u8]> {
        request.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn timeouts_are_seconds_with_a_fraction() {
        let ms = |text: &str| {
            timeout(text.as_bytes(), UnixMs(1_000)).map(|wait| wait.map(|w| w.as_millis()))
        };
        assert_eq!(ms("0"), Ok(None));
        assert_eq!(ms("-0.0"), Ok(None));
        assert_eq!(ms("1.5"), Ok(Some(1_500)));
        assert_eq!(ms("0.0001"), Ok(Some(1)), "rounded up: it is not for ever");
        assert_eq!(ms("1e12"), Ok(Some(1_000_000_000_000_000)));
        assert_eq!(ms("-1"), Err(Fault::NegativeTimeout));
        for text in ["", "x", "nan", " 1", "1 "] {
            assert_eq!(ms(text), Err(Fault::Timeout), "{text:?}");
        }
        for text in ["inf", "9223372036854776", "1e300"] {
            assert_eq!(ms(text), Err(Fault::LongTimeout), "{text:?}");
        }
    }

    #[test]
    fn requests_say_what_they_wait_for() {
        for (request, keys, ms) in [
            ("blpop a b 2", "a b", 2_000),
            ("brpop a 0.5", "a", 500),
            ("blmove a b left right 3", "a", 3_000),
            ("brpoplpush a b 4", "a", 4_000),
            ("blmpop 5 2 a b left count 7", "a b", 5_000),
            ("bzpopmin a b 6", "a b", 6_000),
            ("bzmpop 7 1 a min", "a", 7_000),
        ] {
            let args = args(request);
            let spec = resolve(&args).expect("a command");
            assert_eq!(awaited(spec, &args).join(&b" "[..]), keys.as_bytes(), "{request}");
            assert_eq!(patience(spec, &args), Some(Duration::from_millis(ms)), "{request}");
            let kind = if request.starts_with("bz") { Kind::Zset } else { Kind::List };
            assert_eq!(wanted(spec), kind);
        }
    }

    #[test]
    fn only_nulls_are_nothing() {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            for write in [Reply::null, Reply::null_array] {
                let mut reply = Reply::new(protocol);
                write(&mut reply);
                assert!(is_nothing(&reply.bytes));
            }
        }
        assert!(!is_nothing(b"*0\r\n") && !is_nothing(b"$0\r\n\r\n") && !is_nothing(b""));
    }
}
