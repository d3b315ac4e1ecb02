//! Tests of DUMP, RESTORE and of keys that move with what they hold, whatever it is.

use proptest::prelude::*;

use crate::base::time::UnixMs;
use crate::resp::reply::Protocol;
use crate::value::change::{Change, Edit, Expire};
use crate::value::element::Element;
use crate::value::view::{Kind, Views};

use super::model::{Model, ask};
use super::spec::Keyed;
use super::{dump, key, string};

const AT: UnixMs = UnixMs(4_102_444_800_000);

/// What DUMP answers of `key`.
fn dumped(model: &Model, key: &[u8]) -> Vec<u8> {
    let request: [&[u8]; 2] = [b"DUMP", key];
    let (reply, changes) = ask(model, model.now, Protocol::Resp2, dump::dump_key, &request);
    assert!(changes.is_empty());
    let start = reply.iter().position(|&byte| byte == b'\n').expect("a length") + 1;
    reply[start..reply.len() - 2].to_vec()
}

/// The reply and the only change, if there is one, of a request.
fn asked<'a>(
    model: &Model,
    keyed: Keyed,
    request: &'a [&'a [u8]],
) -> (String, Vec<(&'a [u8], Change<'a>)>) {
    let (reply, changes) = ask(model, model.now, Protocol::Resp2, keyed, request);
    (String::from_utf8(reply).expect("text").trim_end().to_owned(), changes)
}

/// A collection of each type under the name of its type, and a string.
fn furnished() -> Model {
    let mut model = Model::new();
    model.run(&[b"SET", b"string", b"text\0\xff"]);
    let late = Element { expire_at: Some(AT), ..Element::field(&b"late"[..], &b"v"[..]) };
    let edits = vec![
        Edit::field(&b"f"[..], &b"1"[..]),
        Edit::field(&b""[..], &b""[..]),
        Edit::Set { name: late.name, value: late.value, expire_at: late.expire_at },
    ];
    model.make(b"hash", Change::edit(Kind::Hash, edits));
    let pushes = [&b"a"[..], b"b", b"a"].map(|value| Edit::PushRight(value.into()));
    model.make(b"list", Change::edit(Kind::List, pushes));
    model.make(b"set", Change::edit(Kind::Set, [Edit::member(&b"m"[..]), Edit::member(&b"n"[..])]));
    let scores = [Edit::score(&b"m"[..], 1.5), Edit::score(&b"n"[..], f64::NEG_INFINITY)];
    model.make(b"zset", Change::edit(Kind::Zset, scores));
    model
}

const KINDS: [(&[u8], Kind); 5] = [
    (b"string", Kind::String),
    (b"list", Kind::List),
    (b"hash", Kind::Hash),
    (b"set", Kind::Set),
    (b"zset", Kind::Zset),
];

/// What a key shows, its time to live too.
fn shown(model: &Model, key: &[u8]) -> Option<(Kind, Option<UnixMs>, Vec<Element<'static>>)> {
    let view = model.view(key)?;
    let elements = match view.kind {
        Kind::String => vec![Element::item(view.string().unwrap().into_owned())],
        kind => view.fields(kind).unwrap().iter().map(Element::into_owned).collect(),
    };
    Some((view.kind, view.expire_at, elements))
}

#[test]
fn what_was_dumped_is_restored() {
    for (name, kind) in KINDS {
        let mut model = furnished();
        let payload = dumped(&model, name);
        assert_eq!(model.run(&[b"RESTORE", b"copy", b"0", &payload]), b"+OK\r\n");
        assert_eq!(shown(&model, b"copy"), shown(&model, name), "{kind:?}");
        let (again, _) = asked(&model, dump::restore, &[b"RESTORE", b"copy", b"0", &payload]);
        assert_eq!(again, "-BUSYKEY Target key name already exists.");
        model.run(&[b"RESTORE", b"string", b"1500", &payload, b"REPLACE"]);
        assert_eq!(shown(&model, b"string").unwrap().1, Some(UnixMs(model.now.0 + 1_500)));
        model.run(&[b"RESTORE", b"string", b"4102444800000", &payload, b"replace", b"absttl"]);
        let (restored, expire_at, _) = shown(&model, b"string").expect("a key");
        assert_eq!((restored, expire_at), (kind, Some(AT)));
    }
}

#[test]
fn a_time_to_live_is_no_part_of_a_payload() {
    let mut model = furnished();
    let payload = dumped(&model, b"list");
    model.run(&[b"EXPIRE", b"list", b"100"]);
    assert_eq!(dumped(&model, b"list"), payload);
    model.run(&[b"RESTORE", b"list", b"0", &payload, b"REPLACE"]);
    assert_eq!(shown(&model, b"list").unwrap().1, None);
    let (none, _) = asked(&model, dump::dump_key, &[b"DUMP", b"none"]);
    assert_eq!(none, "$-1");
}

#[test]
fn what_has_expired_already_is_not_made() {
    let mut model = furnished();
    let payload = dumped(&model, b"set");
    let past: [&[u8]; 6] = [b"RESTORE", b"none", b"1", &payload, b"ABSTTL", b"REPLACE"];
    assert_eq!(asked(&model, dump::restore, &past), ("+OK".to_owned(), vec![]));
    let over: [&[u8]; 6] = [b"RESTORE", b"zset", b"1", &payload, b"ABSTTL", b"REPLACE"];
    let (reply, changes) = asked(&model, dump::restore, &over);
    assert_eq!((reply, changes), ("+OK".to_owned(), vec![(&b"zset"[..], Change::Delete)]));
    // Fields end by themselves; without any left there is no hash.
    let fields = dumped(&model, b"hash");
    model.make(
        b"one",
        Change::edit(
            Kind::Hash,
            [Edit::Set { name: b"f".into(), value: b"v".into(), expire_at: Some(AT) }],
        ),
    );
    let field = dumped(&model, b"one");
    model.now = AT;
    assert_eq!(model.run(&[b"RESTORE", b"left", b"0", &fields]), b"+OK\r\n");
    assert_eq!(shown(&model, b"left").unwrap().2.len(), 2);
    let request: [&[u8]; 4] = [b"RESTORE", b"none", b"0", &field];
    let (reply, changes) = asked(&model, dump::restore, &request);
    assert_eq!((reply, changes), ("+OK".to_owned(), vec![]));
}

#[test]
fn the_payload_is_frozen() {
    let model = furnished();
    let body = |name: &[u8]| {
        let payload = dumped(&model, name);
        payload[..payload.len() - 8].to_vec()
    };
    assert_eq!(body(b"string"), b"KV\x01\x00text\0\xff");
    assert_eq!(body(b"list"), b"KV\x01\x01\x03\x01a\x01b\x01a");
    let mut zset = b"KV\x01\x04\x02\x01n\0\0\0\0\0\0\xf0\xff\x01m".to_vec();
    zset.extend_from_slice(&1.5f64.to_le_bytes());
    assert_eq!(body(b"zset"), zset);
    // Fields come in no order of their own.
    let hash = body(b"hash");
    assert_eq!(hash[..5], *b"KV\x01\x02\x03");
    for field in [&b"\x01f\x011\x00"[..], b"\x00\x00\x00", b"\x04late\x01v\x81\xb0\x8f\xe6\xb2w"] {
        assert!(hash.windows(field.len()).any(|window| window == field), "{field:?} in {hash:?}");
    }
    let set = body(b"set");
    assert!(set == b"KV\x01\x03\x02\x01m\x01n" || set == b"KV\x01\x03\x02\x01n\x01m");
    assert_eq!(dumped(&model, b"string")[10..], [75, 161, 80, 51, 29, 41, 91, 242]);
}

#[test]
fn a_damaged_payload_is_refused() {
    const REFUSED: &str = "-ERR DUMP payload version or checksum are wrong";
    let model = furnished();
    let restore =
        |payload: &[u8]| asked(&model, dump::restore, &[b"RESTORE", b"k", b"0", payload]).0;
    for (name, _) in KINDS {
        let payload = dumped(&model, name);
        for len in 0..payload.len() {
            assert_eq!(restore(&payload[..len]), REFUSED, "cut to {len}");
        }
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(restore(&damaged), REFUSED, "bit {bit} flipped");
        }
    }
    // The number 1, as redis-server 7.0.15 dumps it.
    assert_eq!(restore(b"\0\xc0\x01\n\0\x8f\x99\x43\x1e\x85\x5a\x9f\x4b"), REFUSED);
}

#[test]
fn a_whole_payload_of_no_value_is_refused() {
    let model = Model::new();
    let nan = [&b"\x04\x01\x01m"[..], &f64::NAN.to_le_bytes()].concat();
    let bodies: [&[u8]; 13] = [
        b"",
        b"\x05",
        b"\x01",
        b"\x01\x00",
        b"\x01\x02\x01a",
        b"\x01\x01\x01ab",
        b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
        b"\x02\x01\x01f\x01v",
        b"\x02\x02\x01f\x01v\x00\x01f\x01w\x00",
        b"\x03\x02\x01m\x01m",
        b"\x03\x01\x02m",
        b"\x04\x01\x01m\0\0\0",
        &nan,
    ];
    for body in bodies {
        let payload = dump::seal([b"KV\x01", body].concat());
        let request: [&[u8]; 4] = [b"RESTORE", b"k", b"0", &payload];
        let (reply, changes) = asked(&model, dump::restore, &request);
        assert_eq!((&reply[..], changes), ("-ERR Bad data format", vec![]), "{body:?}");
    }
    let later = dump::seal(b"KV\x02\x00text".to_vec());
    let (reply, _) = asked(&model, dump::restore, &[b"RESTORE", b"k", b"0", &later]);
    assert_eq!(reply, "-ERR DUMP payload version or checksum are wrong");
}

proptest! {
    #[test]
    fn any_bytes_with_a_checksum_are_restored_or_refused(kind in 0..6u8, body: Vec<u8>) {
        let model = Model::new();
        let payload = dump::seal([&b"KV\x01"[..], &[kind], &body].concat());
        asked(&model, dump::restore, &[b"RESTORE", b"k", b"0", &payload]);
    }
}

#[test]
fn keys_move_and_are_copied_whole() {
    for (name, kind) in KINDS {
        let mut model = furnished();
        model.run(&[b"PEXPIREAT", name, b"4102444800001"]);
        let before = shown(&model, name);
        assert_eq!(before.as_ref().unwrap().1, Some(UnixMs(AT.0 + 1)));
        assert_eq!(model.run(&[b"COPY", name, b"copy"]), b":1\r\n");
        assert_eq!((shown(&model, b"copy"), shown(&model, name)), (before.clone(), before.clone()));
        assert_eq!(model.run(&[b"RENAME", b"copy", b"moved"]), b"+OK\r\n");
        assert_eq!((shown(&model, b"moved"), shown(&model, b"copy")), (before.clone(), None));
        assert_eq!(model.run(&[b"RENAMENX", b"moved", name]), b":0\r\n");
        assert_eq!(model.run(&[b"RENAMENX", b"moved", b"again"]), b":1\r\n");
        assert_eq!(shown(&model, b"again"), before);
        // Onto another type, and back under a string.
        for (other, _) in KINDS.iter().filter(|(other, _)| *other != name) {
            assert_eq!(model.run(&[b"COPY", b"again", other]), b":0\r\n");
            assert_eq!(model.run(&[b"COPY", b"again", other, b"REPLACE"]), b":1\r\n");
            assert_eq!(shown(&model, other), before, "{kind:?}");
        }
        assert_eq!(model.run(&[b"UNLINK", b"again", name]), b":2\r\n");
        assert_eq!(shown(&model, b"again"), None);
    }
}

#[test]
fn a_string_takes_the_place_of_anything() {
    for (name, kind) in KINDS.into_iter().skip(1) {
        let mut model = furnished();
        assert_eq!(model.run(&[b"TYPE", name]), format!("+{}\r\n", kind.name()).as_bytes());
        assert_eq!(asked(&model, string::setnx, &[b"SETNX", name, b"v"]).0, ":0");
        assert_eq!(asked(&model, key::exists_part, &[b"EXISTS", name]).0, ":1");
        let put = Change::Put { value: b"v".into(), expire: Expire::Clear };
        let request: [&[u8]; 3] = [b"SET", name, b"v"];
        let (reply, changes) = asked(&model, string::set, &request);
        assert_eq!((reply, changes), ("+OK".to_owned(), vec![(name, put)]));
        model.run(&[b"SET", name, b"v"]);
        assert_eq!(model.run(&[b"TYPE", name]), b"+string\r\n");
    }
}
