//! How a key is kept: OBJECT, and MEMORY USAGE.

use crate::value::element::Element;
use crate::value::fields::Fields;
use crate::value::view::{Kind, Usage, View};

use super::fault::{Fault, answer};
use super::number::{integer, is, plain_integer};
use super::spec::{Call, Keyed};

/// Longest string that Redis keeps in one block with its header.
const EMBSTR_SIZE_MAX: usize = 44;

/// Strings this long are never integers.
const INT_SIZE_MAX: usize = 20;

/// `OBJECT ENCODING | FREQ | IDLETIME | REFCOUNT key`, and `OBJECT HELP`.
pub fn object(call: &mut Call<'_, '_>) {
    const WITH_KEY: [(&str, &str, Keyed); 4] = [
        ("ENCODING", "object|encoding", object_encoding),
        ("FREQ", "object|freq", object_freq),
        ("IDLETIME", "object|idletime", object_idletime),
        ("REFCOUNT", "object|refcount", object_refcount),
    ];
    answer(call, |call| {
        let word = call.args[1];
        if is(word, "HELP") {
            if call.args.len() != 2 {
                return Err(Fault::Arity("object|help"));
            }
            object_help(call);
            return Ok(());
        }
        let row = WITH_KEY.iter().find(|(name, ..)| is(word, name));
        let (_, full_name, run) = row.ok_or(Fault::Subcommand("OBJECT", word))?;
        if call.args.len() != 3 {
            return Err(Fault::Arity(full_name));
        }
        run(call);
        Ok(())
    });
}

/// Answers null without the key, else what `found` says.
fn with_key<'a, 'r>(
    call: &mut Call<'a, 'r>,
    found: impl FnOnce(&mut Call<'a, 'r>, View<'r>) -> Result<(), Fault<'a>>,
) {
    answer(call, |call| match call.views.view(call.args[2]) {
        Some(view) => found(call, view),
        None => {
            call.reply.null();
            Ok(())
        }
    });
}

/// `OBJECT ENCODING key`: the name of the form in which Redis would keep this value.
pub fn object_encoding(call: &mut Call<'_, '_>) {
    with_key(call, |call, view| {
        call.reply.bulk(encoding(&view)?.as_bytes());
        Ok(())
    });
}

/// Redis's defaults: up to how many elements of which length lie in one block.
const LISTPACK_COUNT_MAX: usize = 128;
const LISTPACK_VALUE_SIZE_MAX: usize = 64;
const INTSET_COUNT_MAX: usize = 512;

/// `list-max-listpack-size -2`: a list's only block.
const LIST_SIZE_MAX: usize = 8 << 10;

/// By what the value holds now. Redis goes by what it ever held: a hash that was large once stays a
/// hash table there. Looks at no more elements than one block of Redis's has.
fn encoding<'a>(view: &View<'_>) -> Result<&'static str, Fault<'a>> {
    if view.kind == Kind::String {
        return Ok(match view.string_len()? {
            len if len <= INT_SIZE_MAX && plain_integer(&view.string()?).is_some() => "int",
            len if len <= EMBSTR_SIZE_MAX => "embstr",
            _ => "raw",
        });
    }
    let fields = view.fields(view.kind)?;
    let is_short = |element: Element<'_>| {
        element.name.len().max(element.value.len()) <= LISTPACK_VALUE_SIZE_MAX
    };
    let is_small = || fields.len() <= LISTPACK_COUNT_MAX && fields.iter().all(is_short);
    let is_integer = |element: Element<'_>| plain_integer(&element.name).is_some();
    Ok(match view.kind {
        Kind::Set if fields.len() <= INTSET_COUNT_MAX && fields.iter().all(is_integer) => "intset",
        Kind::List if is_one_block(&fields) => "listpack",
        Kind::List => "quicklist",
        _ if is_small() => "listpack",
        Kind::Zset => "skiplist",
        Kind::Hash | Kind::Set | Kind::String => "hashtable",
    })
}

/// Whether a list's elements fit one listpack of Redis's, which does not count what the last one
/// needs beside itself.
fn is_one_block(list: &Fields<'_>) -> bool {
    let mut size = 7;
    list.iter().all(|element| {
        let fits = size + element.value.len() <= LIST_SIZE_MAX;
        size += listpack_size(&element.value);
        fits
    })
}

/// Bytes of an element in a listpack: how it is coded, what it is, and the way back to its start.
fn listpack_size(value: &[u8]) -> usize {
    let number = if value.len() <= INT_SIZE_MAX { plain_integer(value) } else { None };
    let coded = match (number, value.len()) {
        (Some(0..=127), _) => 1,
        (Some(-4_096..=4_095), _) => 2,
        (Some(-32_768..=32_767), _) => 3,
        (Some(-8_388_608..=8_388_607), _) => 4,
        (Some(-2_147_483_648..=2_147_483_647), _) => 5,
        (Some(_), _) => 9,
        (None, len @ ..64) => 1 + len,
        (None, len @ ..4_096) => 2 + len,
        (None, len) => 5 + len,
    };
    coded + if coded < 128 { 1 } else { 2 }
}

/// `OBJECT REFCOUNT key`: values are never shared here.
pub fn object_refcount(call: &mut Call<'_, '_>) {
    with_key(call, |call, _| {
        call.reply.integer(1);
        Ok(())
    });
}

/// Answers null without the key, else what `found` says of its use, which this is none.
fn with_usage<'a, 'r>(
    call: &mut Call<'a, 'r>,
    found: impl FnOnce(&Call<'a, 'r>, Usage) -> Result<i64, Fault<'a>>,
) {
    answer(call, |call| {
        match call.views.usage(call.args[2]) {
            Some(usage) => {
                let number = found(call, usage)?;
                call.reply.integer(number);
            }
            None => call.reply.null(),
        }
        Ok(())
    });
}

/// `OBJECT IDLETIME key`: seconds since the last use that is known. The hand that cools values
/// leaves a bit, not a clock: a key that was used since the hand last came by counts as just used,
/// however long ago that was, and any other as used when it was last written.
pub fn object_idletime(call: &mut Call<'_, '_>) {
    with_usage(call, |call, usage| {
        Ok(match usage {
            Usage::Untracked | Usage::Hot { visited: true, .. } => 0,
            Usage::Hot { visited: false, written } | Usage::Cold { written } => {
                (call.now.0.saturating_sub(written.0) / 1_000) as i64
            }
        })
    });
}

/// `OBJECT FREQ key`: 2 in memory and used lately, 1 in memory, 0 on disk; as Redis without an LFU
/// policy where nothing is remembered.
pub fn object_freq(call: &mut Call<'_, '_>) {
    with_usage(call, |_, usage| match usage {
        Usage::Untracked => Err(Fault::NoFrequency),
        Usage::Hot { visited, .. } => Ok(1 + i64::from(visited)),
        Usage::Cold { .. } => Ok(0),
    });
}

/// `OBJECT HELP`.
pub fn object_help(call: &mut Call<'_, '_>) {
    const LINES: [&str; 11] = [
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    The form in which Redis would keep the value: int, embstr, raw, ...",
        "FREQ <key>",
        "    With maxmemory: 2 in memory and used lately, 1 in memory, 0 on disk. Else an error.",
        "IDLETIME <key>",
        "    0 if the key was used lately, else the seconds since it was last written.",
        "REFCOUNT <key>",
        "    1 if the key is there: values are not shared.",
        "HELP",
        "    This text.",
    ];
    call.reply.array(LINES.len());
    LINES.iter().for_each(|line| call.reply.simple(line));
}

/// `MEMORY USAGE key [SAMPLES count]`: the exact bytes, so nothing is sampled. What is on disk
/// only takes none, and is not fetched for the answer.
pub fn memory_usage(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        check_samples(call.args.get(3..).ok_or(Fault::Arity("memory|usage"))?)?;
        match call.views.memory(call.args[2]) {
            Some(bytes) => call.reply.integer(bytes as i64),
            None => call.reply.null(),
        }
        Ok(())
    });
}

fn check_samples<'a>(words: &[&'a [u8]]) -> Result<(), Fault<'a>> {
    words.chunks(2).try_for_each(|pair| match pair {
        [word, count] if is(word, "SAMPLES") => {
            if integer(count)? < 0 {
                Err(Fault::Syntax)
            } else {
                Ok(())
            }
        }
        _ => Err(Fault::Syntax),
    })
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use crate::base::time::UnixMs;
    use crate::resp::reply::{Protocol, Reply};
    use crate::value::view::{Body, Missing, Views};

    use super::*;

    /// One key whose use is known, and whose value is on disk.
    struct Known(Usage, Missing);

    impl Views for Known {
        fn view(&self, key: &[u8]) -> Option<View<'_>> {
            let body = Body::Cold { raw_len: 100, key: b"k", missing: &self.1 };
            let view = View { kind: Kind::String, expire_at: None, memory: 48, body };
            (key == b"k").then_some(view)
        }

        fn usage(&self, key: &[u8]) -> Option<Usage> {
            (key == b"k").then_some(self.0)
        }
    }

    fn asked(keyed: Keyed, usage: Usage, key: &[u8]) -> String {
        let (views, mut reply) = (Known(usage, Missing::default()), Reply::new(Protocol::Resp2));
        let words = [b"OBJECT", &b"X"[..], key];
        let mut changes = SmallVec::new();
        let (args, now, random) = (&words[..], UnixMs(90_999), 0);
        let (seen, out) = (&views, &mut reply);
        keyed(&mut Call { args, now, random, views: seen, reply: out, changes: &mut changes });
        assert!(views.1.is_empty(), "nothing is fetched for an answer about the form");
        String::from_utf8_lossy(&reply.bytes).trim_end().to_owned()
    }

    #[test]
    fn the_form_follows_the_elements() {
        let shown = |kind, elements: Vec<Element<'static>>| {
            let body = Body::Fields(Fields::listed(kind, elements));
            encoding(&View { kind, expire_at: None, memory: 0, body }).expect("a collection")
        };
        let text = |len: usize| vec![b'x'; len];
        let many = |count: usize, make: fn(String) -> Element<'static>| {
            (0..count).map(|nth| make(nth.to_string())).collect::<Vec<_>>()
        };
        let field = |name: String| Element::field(name.into_bytes(), &b"v"[..]);
        assert_eq!(shown(Kind::Hash, many(128, field)), "listpack");
        assert_eq!(shown(Kind::Hash, many(129, field)), "hashtable");
        assert_eq!(shown(Kind::Hash, vec![Element::field(text(64), text(64))]), "listpack");
        assert_eq!(shown(Kind::Hash, vec![Element::field(text(65), text(1))]), "hashtable");
        assert_eq!(shown(Kind::Hash, vec![Element::field(text(1), text(65))]), "hashtable");
        let member = |name: String| Element::member(name.into_bytes());
        let word = |name: String| Element::member(format!("m{name}").into_bytes());
        assert_eq!(shown(Kind::Set, many(512, member)), "intset");
        assert_eq!(shown(Kind::Set, many(513, member)), "hashtable");
        assert_eq!(shown(Kind::Set, vec![Element::member(&b"01"[..])]), "listpack");
        assert_eq!(shown(Kind::Set, many(128, word)), "listpack");
        assert_eq!(shown(Kind::Set, many(129, word)), "hashtable");
        assert_eq!(shown(Kind::Set, vec![Element::member(text(65))]), "hashtable");
        assert_eq!(shown(Kind::Zset, many(128, word)), "listpack");
        assert_eq!(shown(Kind::Zset, many(129, word)), "skiplist");
        assert_eq!(shown(Kind::Zset, vec![Element::scored(text(65), 1.0)]), "skiplist");
        let item = |value: String| Element::item(value.into_bytes());
        // 128 elements take 2 bytes, the others 3.
        assert_eq!(shown(Kind::List, many(128 + 2_642, item)), "listpack");
        assert_eq!(shown(Kind::List, many(128 + 2_643, item)), "quicklist");
        assert_eq!(shown(Kind::List, vec![Element::item(text(8_185))]), "listpack");
        assert_eq!(shown(Kind::List, vec![Element::item(text(8_186))]), "quicklist");
    }

    #[test]
    fn elements_take_as_much_as_in_a_listpack() {
        for (value, size) in [
            ("0", 2),
            ("127", 2),
            ("128", 3),
            ("-1", 3),
            ("-4096", 3),
            ("4096", 4),
            ("-32769", 5),
            ("8388608", 6),
            ("2147483648", 10),
            ("", 2),
            ("01", 4),
        ] {
            assert_eq!(listpack_size(value.as_bytes()), size, "{value}");
        }
        assert_eq!(
            [63, 64, 4_095, 4_096].map(|len| listpack_size(&vec![b'x'; len])),
            [65, 67, 4_099, 4_103]
        );
    }

    #[test]
    fn use_is_told_as_far_as_it_is_remembered() {
        let written = UnixMs(60_000);
        for (usage, idle, freq) in [
            (Usage::Hot { visited: true, written }, ":0", ":2"),
            (Usage::Hot { visited: false, written }, ":30", ":1"),
            (Usage::Cold { written }, ":30", ":0"),
            (Usage::Untracked, ":0", "-ERR An LFU maxmemory policy is not selected"),
        ] {
            assert_eq!(asked(object_idletime, usage, b"k"), idle, "{usage:?}");
            assert!(asked(object_freq, usage, b"k").starts_with(freq), "{usage:?}");
            assert_eq!(asked(object_idletime, usage, b"none"), "$-1");
            assert_eq!(asked(object_freq, usage, b"none"), "$-1");
        }
    }

    #[test]
    fn a_cold_value_is_not_fetched_to_be_described() {
        let cold = Usage::Cold { written: UnixMs(0) };
        assert_eq!(asked(memory_usage, cold, b"k"), ":48");
        assert_eq!(asked(object_encoding, cold, b"k"), "$3\r\nraw");
    }
}
