//! `txn`: a transaction read line by line.

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::{Session, ops};
use crate::cli::command::{Action, Command, choose};
use crate::cli::commands::{DEL, GET, PUT};
use crate::cli::flags::Flags;
use crate::client::Repeat;
use crate::failure::{Failure, Outcome};
use crate::go::number::parse_int;
use crate::go::quote::{quote, scan};
use crate::terminal::{print, read_line};
use crate::text::words;

/// The commands that a line of a transaction may be.
static REQUESTS: Command = Command {
    usage: "",
    short: "",
    long: "",
    group: None,
    flags: &[],
    persistent: &[],
    children: &[PUT, GET, DEL],
    action: None,
};

pub(super) async fn txn(session: Session) -> Outcome {
    if !session.args.is_empty() {
        return Err(Failure::bad_args("txn command does not accept argument"));
    }
    let s = session.connect().await?;
    let prompt = |text: &str| {
        if s.flags.bool("interactive") {
            print(format!("{text}\n").as_bytes());
        }
    };
    prompt("compares:");
    let mut compare = Vec::new();
    while let Some(line) = next_line()? {
        compare.push(parse_compare(&line)?);
    }
    prompt("success requests (get, put, del):");
    let success = read_requests().await?;
    prompt("failure requests (get, put, del):");
    let failure = read_requests().await?;
    let request = TxnRequest {
        compare,
        success,
        failure,
    };
    let repeat = if is_read_only(&request) {
        Repeat::Safe
    } else {
        Repeat::Never
    };
    let answer = s.call("KV/Txn", request, None, repeat).await?;
    print(&s.printer.txn(&answer)?);
    Ok(())
}

fn is_read_only(request: &TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// The next line without blanks around it, `None` at an empty one.
fn next_line() -> Outcome<Option<Vec<u8>>> {
    let line = read_line().map_err(Failure::invalid_input)?;
    let line = line.trim_ascii();
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

async fn read_requests() -> Outcome<Vec<RequestOp>> {
    let mut requests = Vec::new();
    while let Some(line) = next_line()? {
        requests.push(RequestOp {
            request: Some(parse_request(&line).await?),
        });
    }
    Ok(requests)
}

async fn parse_request(line: &[u8]) -> Outcome<Request> {
    let shown = String::from_utf8_lossy(line);
    let words = words(line)?;
    if words.len() < 2 {
        return Err(Failure::invalid_input(format!(
            "invalid txn compare request: {shown}"
        )));
    }
    let invalid = || Failure::invalid_input(format!("invalid txn request: {shown}"));
    let chosen = choose(&REQUESTS, "", &words).map_err(|_| invalid())?;
    let mut flags = Flags::new(chosen.flags());
    let args = flags.parse(&chosen.args).map_err(|_| invalid())?;
    Ok(match chosen.command().action {
        Some(Action::Put) => Request::RequestPut(ops::put(&flags, &args)?),
        Some(Action::Get) => Request::RequestRange(ops::range(&flags, &args)?),
        Some(Action::Del) => Request::RequestDeleteRange(ops::delete(&flags, &args).await?),
        _ => return Err(invalid()),
    })
}

/// Reads a line as `mod("key") > "5"`.
fn parse_compare(line: &[u8]) -> Outcome<Compare> {
    let shown = String::from_utf8_lossy(line);
    let Some(paren) = line.iter().position(|byte| *byte == b'(') else {
        return Err(Failure::invalid_input(format!(
            "malformed comparison: {shown}"
        )));
    };
    let (target, rest) = (String::from_utf8_lossy(&line[..paren]), &line[paren + 1..]);
    let parts = parts(rest).map_err(|(key, op)| {
        let (key, op) = (quote(&key), String::from_utf8_lossy(&op).into_owned());
        Failure::invalid_input(format!(
            "malformed comparison: {shown}; got {target}({key}) {op} \"\""
        ))
    })?;
    let (key, op, value) = parts;
    let result = match op.as_slice() {
        b"=" => CompareResult::Equal,
        b"!=" => CompareResult::NotEqual,
        b">" => CompareResult::Greater,
        b"<" => CompareResult::Less,
        other => {
            let other = String::from_utf8_lossy(other);
            let text = format!("malformed comparison: {shown} (unknown operator {other})");
            return Err(Failure::invalid_input(text));
        }
    };
    let number = || {
        parse_int(&value, 10)
            .map_err(|_| Failure::invalid_input(format!("invalid txn compare request: {shown}")))
    };
    let (target, union) = match target.as_ref() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number()?),
        ),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (
            CompareTarget::Value,
            TargetUnion::Value(Bytes::from(value.clone())),
        ),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number()?)),
        _ => {
            let text = format!("malformed comparison: {shown} (unknown target {target})");
            return Err(Failure::invalid_input(text));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Key, operator and value after the parenthesis; on failure what was read of key and operator.
fn parts(text: &[u8]) -> Result<Parts, (Vec<u8>, Vec<u8>)> {
    let none = || (Vec::new(), Vec::new());
    let (key, rest) = scan(text).map_err(|_| none())?;
    let Some(rest) = rest.strip_prefix(b")") else {
        return Err((key, Vec::new()));
    };
    if !rest.first().is_some_and(u8::is_ascii_whitespace) {
        return Err((key, Vec::new()));
    }
    let rest = rest.trim_ascii_start();
    let len = rest
        .iter()
        .take_while(|byte| !byte.is_ascii_whitespace())
        .count();
    let (op, rest) = rest.split_at(len);
    match scan(rest) {
        Ok((value, _)) => Ok((key, op.to_vec(), value)),
        Err(_) => Err((key, op.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        let failure = parse_compare(line.as_bytes()).unwrap_err();
        assert_eq!(failure.status, 3);
        failure.message.unwrap()
    }

    #[test]
    fn comparisons_are_read() {
        let compare = parse_compare(br#"mod("key1") > "0""#).unwrap();
        assert_eq!(compare.key, "key1");
        assert_eq!(
            (compare.target(), compare.result()),
            (CompareTarget::Mod, CompareResult::Greater)
        );
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(0)));
        let compare = parse_compare(br#"val("a\x00b")  !=  "q\"r""#).unwrap();
        assert_eq!(compare.key.as_ref(), b"a\0b");
        assert_eq!(
            compare.target_union,
            Some(TargetUnion::Value(Bytes::from_static(b"q\"r")))
        );
        let compare = parse_compare(br#"lease("k") = "12""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Lease(12)));
    }

    #[test]
    fn malformed_comparisons_say_what_was_understood() {
        assert_eq!(complaint("foo"), "malformed comparison: foo");
        assert_eq!(
            complaint(r#"ver("a")="1""#),
            r#"malformed comparison: ver("a")="1"; got ver("a")  """#
        );
        assert_eq!(
            complaint(r#"foo("a") > "0""#),
            r#"malformed comparison: foo("a") > "0" (unknown target foo)"#
        );
        assert_eq!(
            complaint(r#"mod("a") > "b""#),
            r#"invalid txn compare request: mod("a") > "b""#
        );
        assert_eq!(
            complaint(r#"mod("a") >= "0""#),
            r#"malformed comparison: mod("a") >= "0" (unknown operator >=)"#
        );
    }

    #[tokio::test]
    async fn requests_are_read() {
        let Request::RequestPut(put) = parse_request(b"put --lease=1 'a b' \"c\\n\"")
            .await
            .unwrap()
        else {
            panic!("not a put");
        };
        assert_eq!(
            (put.key.as_ref(), put.value.as_ref(), put.lease),
            (&b"a b"[..], &b"c\n"[..], 1)
        );
        assert!(matches!(
            parse_request(b"get a --prefix").await.unwrap(),
            Request::RequestRange(_)
        ));
        assert!(matches!(
            parse_request(b"del a --prev-kv").await.unwrap(),
            Request::RequestDeleteRange(_)
        ));
        for (line, text) in [
            ("puts x y", "invalid txn request: puts x y"),
            ("put", "invalid txn compare request: put"),
            ("get a --bogus", "invalid txn request: get a --bogus"),
        ] {
            assert_eq!(
                parse_request(line.as_bytes()).await,
                Err(Failure::invalid_input(text))
            );
        }
    }
}
