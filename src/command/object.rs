//! How a key is kept: OBJECT, and MEMORY USAGE.

use crate::value::view::{Kind, View};

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

fn encoding<'a>(view: &View<'_>) -> Result<&'static str, Fault<'a>> {
    Ok(match view.kind {
        Kind::String => match view.string_len()? {
            len if len <= INT_SIZE_MAX && plain_integer(&view.string()?).is_some() => "int",
            len if len <= EMBSTR_SIZE_MAX => "embstr",
            _ => "raw",
        },
        Kind::List => "quicklist",
        Kind::Hash | Kind::Set => "hashtable",
        Kind::Zset => "skiplist",
    })
}

/// `OBJECT REFCOUNT key`: values are never shared here.
pub fn object_refcount(call: &mut Call<'_, '_>) {
    with_key(call, |call, _| {
        call.reply.integer(1);
        Ok(())
    });
}

/// `OBJECT IDLETIME key`: seconds since the last access. What a key is cooled by is a bit, not a
/// clock, so every key that is there counts as just used.
pub fn object_idletime(call: &mut Call<'_, '_>) {
    with_key(call, |call, _| {
        call.reply.integer(0);
        Ok(())
    });
}

/// `OBJECT FREQ key`: as Redis without an LFU policy.
pub fn object_freq(call: &mut Call<'_, '_>) {
    with_key(call, |_, _| Err(Fault::NoFrequency));
}

/// `OBJECT HELP`.
pub fn object_help(call: &mut Call<'_, '_>) {
    const LINES: [&str; 11] = [
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    The form in which Redis would keep the value: int, embstr, raw, ...",
        "FREQ <key>",
        "    An error: there is no LFU policy here.",
        "IDLETIME <key>",
        "    0 if the key is there: the moment of the last use is not kept.",
        "REFCOUNT <key>",
        "    1 if the key is there: values are not shared.",
        "HELP",
        "    This text.",
    ];
    call.reply.array(LINES.len());
    LINES.iter().for_each(|line| call.reply.simple(line));
}

/// `MEMORY USAGE key [SAMPLES count]`: the exact bytes, so nothing is sampled.
pub fn memory_usage(call: &mut Call<'_, '_>) {
    answer(call, |call| {
        check_samples(call.args.get(3..).ok_or(Fault::Arity("memory|usage"))?)?;
        match call.views.view(call.args[2]) {
            Some(view) => call.reply.integer(view.memory as i64),
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
