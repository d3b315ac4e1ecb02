//! Plays tests/clients/session.json by redis-rs: `session plain|cluster HOST:PORT`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use redis::cluster::ClusterClient;
use redis::{Client, Cmd, Commands, ConnectionLike, RedisError, RedisResult, Value};
use serde_json::Value as Json;

const TAGS: [&str; 8] = ["{a}", "{b}", "{c}", "{d}", "{e}", "{f}", "{g}", "{h}"];

/// A reply as numbers' digits, text, null, booleans and arrays.
fn meaning(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Int(number) => number.to_string().into(),
        Value::Double(number) => number.to_string().into(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::SimpleString(text) => text.clone().into(),
        Value::VerbatimString { text, .. } => text.clone().into(),
        Value::Okay => "OK".into(),
        Value::Boolean(yes) => (*yes).into(),
        Value::Array(items) | Value::Set(items) => items.iter().map(meaning).collect(),
        Value::Map(pairs) => pairs.iter().flat_map(|(k, v)| [meaning(k), meaning(v)]).collect(),
        other => format!("{other:?}").into(),
    }
}

fn fits(got: &Json, want: &Json, tag: &str) -> bool {
    match want {
        Json::Null => got.is_null(),
        Json::Array(wants) => got.as_array().is_some_and(|gots| {
            gots.len() == wants.len() && gots.iter().zip(wants).all(|(g, w)| fits(g, w, tag))
        }),
        Json::Object(rule) if rule.contains_key("any") => true,
        Json::Object(rule) => match (rule.get("set"), rule.get("min"), rule.get("max")) {
            (Some(keys), ..) => {
                let name = |key: &Json| key.as_str().unwrap_or_default().replace("{t}", tag);
                let wanted: BTreeSet<_> = keys.as_array().into_iter().flatten().map(name).collect();
                let found = got.as_array().into_iter().flatten().filter_map(Json::as_str);
                found.map(str::to_owned).collect::<BTreeSet<_>>() == wanted
            }
            (None, Some(min), Some(max)) => {
                let number = got.as_str().and_then(|digits| digits.parse::<i64>().ok());
                number.is_some_and(|n| Some(n) >= min.as_i64() && Some(n) <= max.as_i64())
            }
            _ => false,
        },
        Json::String(text) => got.as_str() == Some(text),
        other => got.as_str() == Some(other.to_string().as_str()),
    }
}

fn play(client: &mut impl ConnectionLike, is_cluster: bool) -> Result<usize, String> {
    let rows: Json = serde_json::from_str(include_str!("../../session.json")).expect("JSON");
    let rows = rows.as_array().expect("an array of rows");
    let mut count = 0;
    for tag in TAGS {
        // The last command tidies up; it also does so after a run that broke off.
        let _: RedisResult<Value> = command(rows.last().expect("a row"), tag).query(client);
        for row in rows {
            if is_cluster && row["only"] == "plain" {
                continue;
            }
            let want = &row["reply"];
            let got: RedisResult<Value> = command(row, tag).query(client);
            let is_right = match &got {
                Ok(reply) => fits(&meaning(reply), want, tag),
                Err(error) => want["error"].as_str().is_some_and(|text| says(error, text)),
            };
            if !is_right {
                return Err(format!("{} as {tag}: {got:?}, expected {want}", row["command"]));
            }
            count += 1;
        }
    }
    Ok(count)
}

fn command(row: &Json, tag: &str) -> Cmd {
    let mut command = Cmd::new();
    for word in row["command"].as_array().expect("a command") {
        command.arg(word.as_str().expect("a word").replace("{t}", tag));
    }
    command
}

fn says(error: &RedisError, text: &str) -> bool {
    error.to_string().contains(text) || error.detail().is_some_and(|detail| detail.contains(text))
}

/// Some of the library's own methods.
fn own_methods<C: ConnectionLike>(client: &mut C, is_cluster: bool) -> RedisResult<usize> {
    for i in 0..100 {
        let () = client.set_ex(format!("rs:{i}"), i, 1_000)?;
    }
    for i in 0..100 {
        assert_eq!(client.incr::<_, _, i64>(format!("rs:{i}"), 1)?, i + 1);
        assert_eq!(client.get::<_, i64>(format!("rs:{i}"))?, i + 1);
    }
    assert_eq!(client.get::<_, Option<i64>>("rs:none")?, None);
    let () = client.mset(&[("{rs}a", 1), ("{rs}b", 2)])?;
    let three: Vec<Option<i64>> = client.mget(&["{rs}a", "{rs}none", "{rs}b"])?;
    assert_eq!(three, [Some(1), None, Some(2)]);
    if !is_cluster {
        let found: BTreeSet<String> =
            client.scan_match("rs:*")?.collect::<RedisResult<Vec<String>>>()?.into_iter().collect();
        assert_eq!(found.len(), 100);
    }
    for i in 0..100 {
        assert_eq!(client.del::<_, i64>(format!("rs:{i}"))?, 1);
    }
    assert_eq!(client.del::<_, i64>(&["{rs}a", "{rs}b"])?, 2);
    Ok(404)
}

fn run<C: ConnectionLike>(mut client: C, is_cluster: bool) -> Result<usize, String> {
    let session = play(&mut client, is_cluster)?;
    let own = own_methods(&mut client, is_cluster).map_err(|error| error.to_string())?;
    Ok(session + own)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, address] = args.as_slice() else {
        eprintln!("usage: session plain|cluster HOST:PORT");
        return ExitCode::from(2);
    };
    let url = format!("redis://{address}");
    let outcome = match kind.as_str() {
        "cluster" => ClusterClient::new(vec![url])
            .and_then(|client| client.get_connection())
            .map_err(|error| error.to_string())
            .and_then(|client| run(client, true)),
        _ => Client::open(url)
            .and_then(|client| client.get_connection())
            .map_err(|error| error.to_string())
            .and_then(|client| run(client, false)),
    };
    match outcome {
        Ok(count) => {
            println!("client redis-rs {kind} ok ({count} commands)");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("client redis-rs {kind}: {what}");
            ExitCode::FAILURE
        }
    }
}
