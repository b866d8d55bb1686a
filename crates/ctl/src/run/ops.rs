//! The requests that `get`, `put` and `del` mean, alone and as lines of a transaction.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use crate::cli::flags::Flags;
use crate::failure::{Failure, Outcome};
use crate::go::number::parse_int;
use crate::go::quote::quote;
use crate::range::{FROM_KEY, prefix_end};
use crate::terminal::{complain, read_all};

/// How long a deletion of a range waits to be interrupted.
const DELETE_PAUSE: Duration = Duration::from_secs(2);

const PREFIX_AND_FROM_KEY: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const TOO_MANY_FOR_RANGE: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
const PUT_ARGUMENTS: &str = "put command needs 1 argument and input from stdin or 2 arguments";

/// # Errors
/// `consistency` is neither `l` nor `s`.
pub(crate) fn is_serializable(consistency: &[u8]) -> Outcome<bool> {
    match consistency {
        b"s" => Ok(true),
        b"l" => Ok(false),
        other => Err(Failure::bad_feature(format!(
            "unknown consistency flag {}",
            quote(other)
        ))),
    }
}

/// The request of `get`.
pub(crate) fn range(flags: &Flags, args: &[Vec<u8>]) -> Outcome<RangeRequest> {
    let Some(key) = args.first() else {
        let text = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_args(text));
    };
    if flags.bool("prefix") && flags.bool("from-key") {
        return Err(Failure::bad_args(PREFIX_AND_FROM_KEY));
    }
    if flags.bool("keys-only") && flags.bool("count-only") {
        let text = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Failure::bad_args(text));
    }
    let serializable = is_serializable(&flags.bytes("consistency"))?;
    let (key, range_end) = keys(flags, key, args.get(1))?;
    let (sort_target, sort_order) = sorting(flags)?;
    check_revisions(
        flags,
        "MinCreateRev",
        "MaxCreateRev",
        "min-create-rev",
        "max-create-rev",
    )?;
    check_revisions(
        flags,
        "MinModRev",
        "MaxModRev",
        "min-mod-rev",
        "max-mod-rev",
    )?;
    let positive = |flag: &str| flags.int(flag).max(0);
    Ok(RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: positive("rev"),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only: flags.bool("keys-only"),
        count_only: flags.bool("count-only"),
        min_mod_revision: positive("min-mod-rev"),
        max_mod_revision: positive("max-mod-rev"),
        min_create_revision: positive("min-create-rev"),
        max_create_revision: positive("max-create-rev"),
    })
}

/// The first key and the end of the range by `--prefix`, `--from-key` or a second argument.
fn keys(flags: &Flags, key: &[u8], end: Option<&Vec<u8>>) -> Outcome<(Bytes, Bytes)> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if end.is_some() && (prefix || from_key) {
        return Err(Failure::bad_args(TOO_MANY_FOR_RANGE));
    }
    Ok(match end {
        Some(end) => (Bytes::copy_from_slice(key), Bytes::from(end.clone())),
        None if (prefix || from_key) && key.is_empty() => {
            (Bytes::from_static(FROM_KEY), Bytes::from_static(FROM_KEY))
        }
        None if prefix => (Bytes::copy_from_slice(key), Bytes::from(prefix_end(key))),
        None if from_key => (Bytes::copy_from_slice(key), Bytes::from_static(FROM_KEY)),
        None => (Bytes::copy_from_slice(key), Bytes::new()),
    })
}

/// What to sort by and how; ascending keys are the store's own order, for which nothing is asked.
fn sorting(flags: &Flags) -> Outcome<(SortTarget, SortOrder)> {
    let order_text = flags.string("order");
    let order = match order_text.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(Failure::bad_feature(format!("bad sort order {order_text}"))),
    };
    let target_text = flags.string("sort-by");
    let target = match target_text.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => {
            return Err(Failure::bad_feature(format!(
                "bad sort target {target_text}"
            )));
        }
    };
    if (target, order) == (SortTarget::Key, SortOrder::Ascend) {
        return Ok((target, SortOrder::None));
    }
    Ok((target, order))
}

fn check_revisions(flags: &Flags, min_name: &str, max_name: &str, min: &str, max: &str) -> Outcome {
    let (min, max) = (flags.int(min), flags.int(max));
    if max > 0 && min > max {
        return Err(Failure::bad_feature(format!(
            "get{min_name}(={min}) > get{max_name}(={max})"
        )));
    }
    Ok(())
}

/// The request of `put`; reads the value from standard input when it is not an argument.
pub(crate) fn put(flags: &Flags, args: &[Vec<u8>]) -> Outcome<PutRequest> {
    let Some(key) = args.first() else {
        return Err(Failure::bad_args(PUT_ARGUMENTS));
    };
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && args.len() > 1 {
        return Err(Failure::bad_args(
            "put command needs only 1 argument when 'ignore-value' is set",
        ));
    }
    let value = match args.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => read_all().ok_or_else(|| Failure::bad_args(PUT_ARGUMENTS))?,
    };
    let lease = parse_int(&flags.bytes("lease"), 16);
    let lease =
        lease.map_err(|e| Failure::bad_args(format!("bad lease ID ({e}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}

/// The request of `del`; waits before a range that was not asked for with `--range`.
pub(crate) async fn delete(flags: &Flags, args: &[Vec<u8>]) -> Outcome<DeleteRangeRequest> {
    let (Some(key), 1..=2) = (args.first(), args.len()) else {
        let text = "del command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_args(text));
    };
    if flags.bool("prefix") && flags.bool("from-key") {
        return Err(Failure::bad_args(PREFIX_AND_FROM_KEY));
    }
    let (first, range_end) = keys(flags, key, args.get(1))?;
    if let Some(end) = args.get(1).filter(|_| !flags.bool("range")) {
        complain(&format!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to cancel. \
             You can provide `--range` flag to avoid the delay.",
            quote(key),
            quote(end)
        ));
        tokio::time::sleep(DELETE_PAUSE).await;
    }
    Ok(DeleteRangeRequest {
        key: first,
        range_end,
        prev_kv: flags.bool("prev-kv"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command::Command;
    use crate::cli::commands::{GET, PUT};

    static GET_COMMAND: Command = GET;
    static PUT_COMMAND: Command = PUT;

    fn parsed(command: &'static Command, args: &[&str]) -> (Flags, Vec<Vec<u8>>) {
        let args: Vec<Vec<u8>> = args.iter().map(|a| a.as_bytes().to_vec()).collect();
        let mut flags = Flags::new(command.flags.iter().collect());
        let left = flags.parse(&args).unwrap();
        (flags, left)
    }

    fn get(args: &[&str]) -> Outcome<RangeRequest> {
        let (flags, args) = parsed(&GET_COMMAND, args);
        range(&flags, &args)
    }

    #[test]
    fn ranges_come_from_flags_or_a_second_argument() {
        let ends = |args: &[&str]| {
            let request = get(args).unwrap();
            (request.key.to_vec(), request.range_end.to_vec())
        };
        assert_eq!(ends(&["a"]), (b"a".to_vec(), b"".to_vec()));
        assert_eq!(ends(&["a", "c"]), (b"a".to_vec(), b"c".to_vec()));
        assert_eq!(ends(&["a", "--prefix"]), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(ends(&["", "--prefix"]), (b"\0".to_vec(), b"\0".to_vec()));
        assert_eq!(ends(&["a", "--from-key"]), (b"a".to_vec(), b"\0".to_vec()));
        assert_eq!(get(&["a", "b", "--prefix"]).unwrap_err().status, 128);
        assert_eq!(
            get(&["a", "--from-key", "--prefix"]).unwrap_err().status,
            128
        );
        assert_eq!(get(&[]).unwrap_err().status, 128);
    }

    #[test]
    fn ascending_keys_need_no_sorting() {
        let order = |args: &[&str]| get(args).unwrap().sort_order();
        assert_eq!(order(&["a", "--order", "ascend"]), SortOrder::None);
        assert_eq!(order(&["a", "--order=DESCEND"]), SortOrder::Descend);
        assert_eq!(
            order(&["a", "--order=ASCEND", "--sort-by=value"]),
            SortOrder::Ascend
        );
        assert_eq!(
            get(&["a", "--order=up"]).unwrap_err(),
            Failure::bad_feature("bad sort order up")
        );
        assert_eq!(
            get(&["a", "--sort-by=x"]).unwrap_err(),
            Failure::bad_feature("bad sort target x")
        );
    }

    #[test]
    fn impossible_revision_bounds_are_refused() {
        assert_eq!(
            get(&["a", "--min-mod-rev=5", "--max-mod-rev=4"]).unwrap_err(),
            Failure::bad_feature("getMinModRev(=5) > getMaxModRev(=4)")
        );
        assert_eq!(get(&["a", "--consistency=x"]).unwrap_err().status, 4);
    }

    #[test]
    fn a_put_takes_its_lease_in_hexadecimal() {
        let (flags, args) = parsed(&PUT_COMMAND, &["k", "v", "--lease=1f"]);
        assert_eq!(put(&flags, &args).unwrap().lease, 31);
        let (flags, args) = parsed(&PUT_COMMAND, &["k", "v", "--lease=x"]);
        assert_eq!(
            put(&flags, &args).unwrap_err(),
            Failure::bad_args(
                "bad lease ID (strconv.ParseInt: parsing \"x\": invalid syntax), expecting ID in Hex"
            )
        );
        let (flags, args) = parsed(&PUT_COMMAND, &["k", "v", "--ignore-value"]);
        assert_eq!(put(&flags, &args).unwrap_err().status, 128);
    }
}
