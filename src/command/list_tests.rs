//! Tests of lists and SORT: the changes that the commands name, and what only Kvorum answers.

use std::borrow::Cow;

use crate::value::change::{Change, Edit};
use crate::value::element::Element;
use crate::value::view::Kind;

use super::model::{Model, ask, words};
use super::spec::Run;
use super::table;

/// `l` = a b c b, `m` = x, `{l}ids` = 2 1, and a hash for each of them.
fn furnished() -> Model {
    let mut model = Model::new();
    for line in ["RPUSH l a b c b", "RPUSH m x", "RPUSH {l}ids 2 1"] {
        run(&mut model, line);
    }
    model
}

fn run(model: &mut Model, line: &str) -> String {
    let request = words(line);
    let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    String::from_utf8(model.run(&request)).expect("text")
}

fn item(value: &'static str) -> Cow<'static, [u8]> {
    Cow::Borrowed(value.as_bytes())
}

fn edit(edits: impl IntoIterator<Item = Edit<'static>>) -> Change<'static> {
    Change::edit(Kind::List, edits)
}

fn removal(place: usize, count: usize) -> Edit<'static> {
    Edit::RemoveRange { place, count }
}

fn made(values: &[&'static str]) -> Change<'static> {
    let elements = values.iter().map(|value| Element::item(value.as_bytes().to_vec()));
    Change::make(Kind::List, None, elements.collect())
}

#[test]
fn commands_name_their_changes() {
    let left = |value| Edit::PushLeft(item(value));
    let right = |value| Edit::PushRight(item(value));
    let insert = |place, value| Edit::Insert { place, value: item(value) };
    let rows: Vec<(&str, Vec<(&str, Change<'static>)>)> = vec![
        ("LPUSH l x y", vec![("l", edit([left("x"), left("y")]))]),
        ("RPUSH new x", vec![("new", edit([right("x")]))]),
        ("LPUSHX new x", vec![]),
        ("LPOP l", vec![("l", edit([removal(0, 1)]))]),
        ("RPOP l 2", vec![("l", edit([removal(2, 2)]))]),
        ("LPOP l 0", vec![]),
        // However many there were, it is one removal.
        ("RPOP l 9", vec![("l", Change::Delete)]),
        ("LPOP m", vec![("m", Change::Delete)]),
        ("LPOP none", vec![]),
        ("LSET l -1 x", vec![("l", edit([Edit::SetAt { place: 3, value: item("x") }]))]),
        ("LINSERT l BEFORE b x", vec![("l", edit([insert(1, "x")]))]),
        ("LINSERT l AFTER b x", vec![("l", edit([insert(2, "x")]))]),
        ("LINSERT l AFTER none x", vec![]),
        // Places are counted after each edit, so the last one goes first.
        ("LREM l 0 b", vec![("l", edit([removal(3, 1), removal(1, 1)]))]),
        ("LREM l -1 b", vec![("l", edit([removal(3, 1)]))]),
        ("LREM m 0 x", vec![("m", Change::Delete)]),
        ("LREM l 0 none", vec![]),
        ("LTRIM l 1 2", vec![("l", edit([removal(3, 1), removal(0, 1)]))]),
        ("LTRIM l 0 1", vec![("l", edit([removal(2, 2)]))]),
        ("LTRIM l 0 -1", vec![]),
        ("LTRIM l 9 9", vec![("l", Change::Delete)]),
        ("LTRIM none 9 9", vec![]),
        ("LMOVE l l LEFT RIGHT", vec![("l", edit([removal(0, 1), right("a")]))]),
        ("LMOVE m l LEFT LEFT", vec![("m", Change::Delete), ("l", edit([left("x")]))]),
        ("RPOPLPUSH l m", vec![("l", edit([removal(3, 1)])), ("m", edit([left("b")]))]),
        ("LMPOP 2 none l RIGHT COUNT 3", vec![("l", edit([removal(1, 3)]))]),
        ("BLPOP none l 0", vec![("l", edit([removal(0, 1)]))]),
        ("BLMPOP 0 2 none m LEFT", vec![("m", Change::Delete)]),
        ("BRPOPLPUSH none l 0", vec![]),
        ("SORT l ALPHA", vec![]),
        ("SORT {l}ids STORE {l}to", vec![("{l}to", made(&["1", "2"]))]),
        ("SORT none STORE l", vec![("l", Change::Delete)]),
        ("SORT none STORE nothing", vec![]),
    ];
    for (line, expected) in rows {
        let model = furnished();
        let request = words(line);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let spec = table::resolve(&request).expect(line);
        let Run::Slot(keyed) = spec.run else { panic!("{line}") };
        let (_, changes) = ask(&model, model.now, model.protocol, keyed, &request);
        let named = |(key, change): (&[u8], Change<'_>)| {
            (String::from_utf8_lossy(key).into_owned(), format!("{change:?}"))
        };
        let changes: Vec<_> = changes.into_iter().map(named).collect();
        let expected = expected.into_iter().map(|(key, change)| named((key.as_bytes(), change)));
        assert_eq!(changes, expected.collect::<Vec<_>>(), "{line}");
    }
}

#[test]
fn patterns_of_other_slots_are_denied() {
    let mut model = furnished();
    for line in ["SORT l BY w_*", "SORT l ALPHA BY w_*->{l}", "SORT_RO {l}ids BY *{l}"] {
        let denied = "-ERR BY option of SORT denied in Cluster mode.\r\n";
        assert_eq!(run(&mut model, line), denied, "{line}");
    }
    for line in ["SORT l GET w_*", "SORT l GET w", "SORT {l}ids GET # GET {m}*"] {
        let denied = "-ERR GET option of SORT denied in Cluster mode.\r\n";
        assert_eq!(run(&mut model, line), denied, "{line}");
    }
    run(&mut model, "SET {l}w_1 9");
    let sorted = run(&mut model, "SORT {l}ids BY {l}w_* GET # GET {l}w_*");
    assert_eq!(sorted, "*4\r\n$1\r\n2\r\n$-1\r\n$1\r\n1\r\n$1\r\n9\r\n");
}

/// These were wrong in Redis 7.0 and are as in 7.2.
#[test]
fn the_one_number_without_an_opposite_is_refused() {
    let mut model = furnished();
    let out_of_range = "-ERR value is out of range, value must between -9223372036854775807 and \
                        9223372036854775807\r\n";
    for line in ["LREM l -9223372036854775808 a", "LPOS l a RANK -9223372036854775808"] {
        assert_eq!(run(&mut model, line), out_of_range, "{line}");
    }
    assert_eq!(run(&mut model, "BLPOP none inf"), "-ERR timeout is out of range\r\n");
}
