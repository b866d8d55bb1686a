//! `watch`, once or interactively.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Session;
use super::session::Connected;
use crate::cli::commands::WATCH;
use crate::cli::flags::{Flags, ParseError};
use crate::client::{STREAM_QUEUE_MAX, is_unreached};
use crate::failure::{Failure, Outcome, status};
use crate::go::quote::{quote, quote_list};
use crate::print::{Watched, event_type};
use crate::range::{FROM_KEY, prefix_end};
use crate::status::{is_known, rpc_text};
use crate::terminal::{complain, print, read_line};
use crate::text::words;

/// The pause before a broken stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// Lines of standard input read ahead.
const LINES_MAX: usize = 16;

const BAD_ARGS: &str = "bad number of arguments";
const ENV_CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

static WATCH_COMMAND: crate::cli::command::Command = WATCH;

/// What one watch asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    key: Bytes,
    range_end: Bytes,
    /// Where to begin, moved on with what has arrived; 0 for now.
    revision: i64,
    prev_kv: bool,
    progress: bool,
    /// The command to run for each event, if any.
    exec: Vec<Vec<u8>>,
}

/// The key and the range end that the environment gives.
#[derive(Debug, Clone, Default)]
struct Environment {
    key: Vec<u8>,
    range_end: Vec<u8>,
}

impl Environment {
    fn read() -> Outcome<Environment> {
        let variable = |name: &str| std::env::var_os(name).unwrap_or_default().into_vec();
        let environment = Environment {
            key: variable("ETCDCTL_WATCH_KEY"),
            range_end: variable("ETCDCTL_WATCH_RANGE_END"),
        };
        if environment.key.is_empty() && !environment.range_end.is_empty() {
            let end = quote(&environment.range_end);
            return Err(Failure::bad_args(format!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}"
            )));
        }
        Ok(environment)
    }

    fn words(&self) -> Vec<Vec<u8>> {
        let words = [self.key.clone(), self.range_end.clone()];
        words.into_iter().filter(|word| !word.is_empty()).collect()
    }
}

pub(super) async fn watch(session: Session) -> Outcome {
    let environment = Environment::read()?;
    if session.flags.bool("interactive") {
        let s = session.connect().await?;
        return interactive(&s, &environment).await;
    }
    let raw: Vec<Vec<u8>> = std::env::args_os()
        .map(std::ffi::OsString::into_vec)
        .collect();
    let (keys, exec) = arguments(&raw, &session.args, &environment).map_err(Failure::bad_args)?;
    let s = session.connect().await?;
    let plan = plan(&s.flags, &keys, exec).map_err(Failure::bad_args)?;
    let mut watches = Watches::new(&s);
    watches.add(plan).await?;
    while !watches.plans.is_empty() {
        watches.step().await?;
    }
    Err(Failure::new(
        status::INTERRUPTED,
        "watch is canceled by the server",
    ))
}

/// Reads watches line by line and follows all of them on one stream.
async fn interactive(s: &Connected, environment: &Environment) -> Outcome {
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        loop {
            let line = read_line();
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    let mut watches = Watches::new(s);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            outcome = watches.step(), if watches.is_open() => {
                outcome?;
                continue;
            }
        };
        let line = line.unwrap_or_else(|| Err("EOF".to_owned()));
        let line = line.map_err(|e| {
            Failure::invalid_input(format!("error reading watch request line: {e}"))
        })?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let shown = String::from_utf8_lossy(line);
        match words(line)?.split_first() {
            None => complain(&format!(
                "Invalid command: {shown} (watch and progress supported)"
            )),
            Some((word, [])) if word == b"watch" && environment.key.is_empty() => {
                complain(&format!(
                    "Invalid command {shown} (command type or key is not provided)"
                ));
            }
            Some((word, rest)) if word == b"watch" => {
                let (flags, keys, exec) =
                    interactive_arguments(rest, environment).map_err(Failure::bad_args)?;
                match plan(&flags, &keys, exec) {
                    Ok(plan) => watches.add(plan).await?,
                    Err(text) => complain(&format!("Invalid command {shown} ({text})")),
                }
            }
            Some((word, _)) if word == b"progress" => watches.request_progress().await?,
            Some(_) => complain(&format!("Invalid command {shown} (only support watch)")),
        }
    }
}

type Words = Vec<Vec<u8>>;

/// The keys and the command of `watch`: `raw` is the whole command line, `parsed` what the flags left of it.
///
/// The flags leave no trace of `--`, so the command is found in `raw` and cut off the end of `parsed`.
fn arguments(
    raw: &[Vec<u8>],
    parsed: &[Vec<u8>],
    environment: &Environment,
) -> Result<(Words, Words), &'static str> {
    let after_name = raw
        .iter()
        .position(|word| word == b"watch")
        .map_or(0, |at| at + 1);
    let raw = &raw[after_name..];
    let separator = raw.iter().position(|word| word == b"--");
    let has_key = !environment.key.is_empty();
    let Some(separator) = separator else {
        if raw.is_empty() && !has_key {
            return Err(BAD_ARGS);
        }
        if !parsed.is_empty() && has_key {
            return Err(ENV_CONFLICT);
        }
        return Ok(([environment.words(), parsed.to_vec()].concat(), Vec::new()));
    };
    let exec = raw[separator + 1..].to_vec();
    if exec.is_empty() {
        return Err(NO_COMMAND);
    }
    let keys = parsed[..parsed.len().saturating_sub(exec.len())].to_vec();
    if has_key && !keys.is_empty() {
        return Err(ENV_CONFLICT);
    }
    Ok(([environment.words(), keys].concat(), exec))
}

/// Flags, keys and command of an interactive line, without its first word.
fn interactive_arguments(
    line: &[Vec<u8>],
    environment: &Environment,
) -> Result<(Flags, Words, Words), String> {
    let (line, exec) = match line.iter().position(|word| word == b"--") {
        Some(at) if at + 1 == line.len() => return Err(NO_COMMAND.to_owned()),
        Some(at) => (&line[..at], line[at + 1..].to_vec()),
        None => (line, Vec::new()),
    };
    let mut flags = Flags::new(WATCH_COMMAND.flags.iter().collect());
    let keys = flags.parse(line).map_err(|error| match error {
        ParseError::Help => "help requested".to_owned(),
        ParseError::Bad(text) => text,
    })?;
    let has_key = !environment.key.is_empty();
    if keys.is_empty() && !has_key && exec.is_empty() {
        return Err(BAD_ARGS.to_owned());
    }
    if !keys.is_empty() && has_key {
        return Err(ENV_CONFLICT.to_owned());
    }
    Ok((flags, [environment.words(), keys].concat(), exec))
}

fn plan(flags: &Flags, keys: &[Vec<u8>], exec: Words) -> Result<Plan, &'static str> {
    let Some(key) = keys.first() else {
        return Err(BAD_ARGS);
    };
    let prefix = flags.bool("prefix");
    let (key, range_end) = match keys.get(1).filter(|_| keys.len() == 2) {
        Some(_) if prefix => return Err("`range_end` and `--prefix` are mutually exclusive"),
        Some(end) => (key.clone(), end.clone()),
        None if prefix && key.is_empty() => (FROM_KEY.to_vec(), FROM_KEY.to_vec()),
        None if prefix => (key.clone(), prefix_end(key)),
        None => (key.clone(), Vec::new()),
    };
    Ok(Plan {
        key: key.into(),
        range_end: range_end.into(),
        revision: flags.int("rev"),
        prev_kv: flags.bool("prev-kv"),
        progress: flags.bool("progress-notify"),
        exec,
    })
}

/// Watches on one stream, opened again where they left off when it breaks.
struct Watches<'a> {
    s: &'a Connected,
    stream: Option<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)>,
    /// By watch id, which is chosen here.
    plans: BTreeMap<i64, Plan>,
    /// Watches whose creation the server has yet to answer, oldest first: a refusal bears no id.
    unanswered: VecDeque<i64>,
    next_id: i64,
}

impl<'a> Watches<'a> {
    fn new(s: &'a Connected) -> Watches<'a> {
        Watches {
            s,
            stream: None,
            plans: BTreeMap::new(),
            unanswered: VecDeque::new(),
            next_id: 1,
        }
    }

    fn is_open(&self) -> bool {
        self.stream.is_some() || !self.plans.is_empty()
    }

    async fn add(&mut self, plan: Plan) -> Outcome {
        let id = self.next_id;
        self.next_id += 1;
        self.plans.insert(id, plan.clone());
        if self.stream.is_some() {
            self.unanswered.push_back(id);
            return self.send(create(id, &plan)).await;
        }
        Ok(())
    }

    async fn request_progress(&mut self) -> Outcome {
        self.open().await?;
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await
    }

    /// Hands a request to the stream; on a broken one it comes with all the others when it is opened again.
    async fn send(&mut self, request: RequestUnion) -> Outcome {
        if let Some((sender, _)) = &self.stream {
            let request = WatchRequest {
                request_union: Some(request),
            };
            if sender.send(request).await.is_err() {
                self.stream = None;
            }
        }
        Ok(())
    }

    /// Opens the stream, with a request for each watch already under way.
    async fn open(&mut self) -> Outcome {
        while self.stream.is_none() {
            let (sender, requests) = mpsc::channel(STREAM_QUEUE_MAX.max(self.plans.len() + 1));
            self.unanswered = self.plans.keys().copied().collect();
            for (id, plan) in &self.plans {
                let request = WatchRequest {
                    request_union: Some(create(*id, plan)),
                };
                sender
                    .try_send(request)
                    .expect("the queue has room for every watch");
            }
            match self.s.client.stream("Watch/Watch", requests, true).await {
                Ok(answers) => self.stream = Some((sender, answers)),
                Err(crate::status::CallError::Status(status)) => self.broken(&status).await?,
                Err(error) => return Err(super::session::fail(error)),
            }
        }
        Ok(())
    }

    /// Waits for one answer and shows it.
    ///
    /// # Cancel safety
    /// An answer is either not yet taken from the stream or shown.
    async fn step(&mut self) -> Outcome {
        self.open().await?;
        let Some((_, answers)) = &mut self.stream else {
            return Ok(());
        };
        match answers.message().await {
            Ok(Some(answer)) => self.take(answer),
            Ok(None) => {
                self.stream = None;
                Ok(())
            }
            Err(status) => self.broken(&status).await,
        }
    }

    /// Goes on after a failure that may pass, and ends all watches after one that does not.
    async fn broken(&mut self, status: &Status) -> Outcome {
        self.stream = None;
        if is_unreached(status) {
            self.s.client.drop_channel();
            tokio::time::sleep(REOPEN_PAUSE).await;
            return Ok(());
        }
        let text = if is_known(status.message()) {
            status.message().to_owned()
        } else {
            rpc_text(status)
        };
        for plan in std::mem::take(&mut self.plans).into_values() {
            let ended = Watched {
                canceled: true,
                ..Watched::default()
            };
            self.show(&ended, Some(&text), &plan.exec)?;
        }
        Ok(())
    }

    fn take(&mut self, answer: WatchResponse) -> Outcome {
        let revision = answer.header.as_ref().map_or(0, |h| h.revision);
        if answer.created {
            let id = self.unanswered.pop_front().unwrap_or(answer.watch_id);
            if answer.canceled || answer.watch_id < 0 {
                return self.refused(id, &answer.cancel_reason);
            }
            let plan = self.plans.get_mut(&id).filter(|p| p.revision == 0);
            if let Some(plan) = plan {
                plan.revision = revision + 1;
            }
            return Ok(());
        }
        let is_progress =
            answer.events.is_empty() && !answer.canceled && answer.compact_revision == 0;
        let ids: Vec<i64> = match answer.watch_id {
            -1 if is_progress => self.plans.keys().copied().collect(),
            id => vec![id],
        };
        let reason = cancel_text(&answer);
        let canceled = answer.canceled || answer.compact_revision != 0;
        let seen = Watched {
            events: (!canceled).then_some(answer.events),
            header: answer.header,
            compact_revision: answer.compact_revision,
            canceled,
            cancel_reason: answer.cancel_reason,
        };
        for id in ids {
            let Some(plan) = self.plans.get_mut(&id) else {
                continue;
            };
            let last = seen.events.iter().flatten().next_back();
            let last = last
                .and_then(|event| event.kv.as_ref())
                .map(|kv| kv.mod_revision);
            plan.revision = plan.revision.max(last.unwrap_or(revision) + 1);
            let exec = plan.exec.clone();
            self.show(&seen, reason.as_deref(), &exec)?;
            if canceled {
                self.plans.remove(&id);
            }
        }
        Ok(())
    }

    /// Ends a watch that the server did not make.
    fn refused(&mut self, id: i64, reason: &str) -> Outcome {
        let Some(plan) = self.plans.remove(&id) else {
            return Ok(());
        };
        let ended = Watched {
            canceled: true,
            ..Watched::default()
        };
        self.show(&ended, Some(reason), &plan.exec)
    }

    fn show(&self, seen: &Watched, reason: Option<&str>, exec: &[Vec<u8>]) -> Outcome {
        let revision = seen.header.as_ref().map_or(0, |h| h.revision);
        let events = seen.events.as_deref().unwrap_or_default();
        if let Some(reason) = reason.filter(|_| seen.canceled) {
            complain(&format!("watch was canceled ({reason})"));
        }
        if events.is_empty() && !seen.canceled && revision != 0 {
            print(format!("progress notify: {revision}\n").as_bytes());
        }
        print(&self.s.printer.watch(seen)?);
        if exec.is_empty() {
            return Ok(());
        }
        for event in events {
            let kv = event.kv.clone().unwrap_or_default();
            let kind = quote(event_type(event.r#type()).as_bytes());
            execute(exec, revision, &kind, &quote(&kv.key), &quote(&kv.value))?;
        }
        Ok(())
    }
}

fn create(id: i64, plan: &Plan) -> RequestUnion {
    RequestUnion::CreateRequest(WatchCreateRequest {
        key: plan.key.clone(),
        range_end: plan.range_end.clone(),
        start_revision: plan.revision,
        progress_notify: plan.progress,
        prev_kv: plan.prev_kv,
        watch_id: id,
        ..WatchCreateRequest::default()
    })
}

/// Why a watch was cancelled, in the words of etcd's client.
fn cancel_text(answer: &WatchResponse) -> Option<String> {
    if answer.compact_revision != 0 {
        return Some(COMPACTED.to_owned());
    }
    if !answer.canceled {
        return None;
    }
    let reason = &answer.cancel_reason;
    Some(match reason.as_str() {
        "" => FUTURE.to_owned(),
        known if is_known(known) => known.to_owned(),
        _ => rpc_text(&Status::failed_precondition(reason)),
    })
}

fn execute(exec: &[Vec<u8>], revision: i64, kind: &str, key: &str, value: &str) -> Outcome {
    let mut words = exec
        .iter()
        .map(|word| std::ffi::OsString::from_vec(word.clone()));
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", kind)
        .env("ETCD_WATCH_KEY", key)
        .env("ETCD_WATCH_VALUE", value);
    let why = match command.status() {
        Ok(ended) if ended.success() => return Ok(()),
        Ok(ended) => match ended.code() {
            Some(code) => format!("exit status {code}"),
            None => ended.to_string(),
        },
        Err(error) => error.to_string(),
    };
    complain(&format!("command {} error ({why})", quote_list(exec)));
    Err(Failure::silent(status::ERROR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Words {
        text.split_whitespace()
            .map(|w| w.as_bytes().to_vec())
            .collect()
    }

    fn environment(key: &str, range_end: &str) -> Environment {
        Environment {
            key: key.into(),
            range_end: range_end.into(),
        }
    }

    #[test]
    fn keys_and_command_are_told_apart() {
        for (raw, parsed, key, end, want) in [
            ("ctl watch foo bar", "foo bar", "", "", Ok(("foo bar", ""))),
            (
                "ctl watch foo -- echo hi",
                "foo echo hi",
                "",
                "",
                Ok(("foo", "echo hi")),
            ),
            (
                "ctl watch foo --rev 1 bar -- echo foo",
                "foo bar echo foo",
                "",
                "",
                Ok(("foo bar", "echo foo")),
            ),
            (
                "ctl watch -- echo hi",
                "echo hi",
                "foo",
                "",
                Ok(("foo", "echo hi")),
            ),
            ("ctl watch --rev 1", "", "foo", "bar", Ok(("foo bar", ""))),
            ("ctl watch foo", "foo", "foo", "", Err(ENV_CONFLICT)),
            (
                "ctl watch foo -- echo 1",
                "foo echo 1",
                "foo",
                "",
                Err(ENV_CONFLICT),
            ),
            ("ctl watch foo --", "foo", "", "", Err(NO_COMMAND)),
            ("ctl watch", "", "", "", Err(BAD_ARGS)),
        ] {
            let found = arguments(&words_of(raw), &words_of(parsed), &environment(key, end));
            let want = want.map(|(keys, exec)| (words_of(keys), words_of(exec)));
            assert_eq!(found, want, "{raw}");
        }
    }

    #[test]
    fn interactive_lines_have_flags_of_their_own() {
        let none = Environment::default();
        let (flags, keys, exec) =
            interactive_arguments(&words_of("foo --rev 5 --prefix -- echo hi"), &none).unwrap();
        assert_eq!((flags.int("rev"), flags.bool("prefix")), (5, true));
        assert_eq!((keys, exec), (words_of("foo"), words_of("echo hi")));
        assert_eq!(
            interactive_arguments(&words_of("foo --"), &none).unwrap_err(),
            NO_COMMAND
        );
        assert_eq!(interactive_arguments(&[], &none).unwrap_err(), BAD_ARGS);
        assert_eq!(
            interactive_arguments(&words_of("foo"), &environment("k", "")).unwrap_err(),
            ENV_CONFLICT
        );
        assert_eq!(
            interactive_arguments(&words_of("foo --bogus"), &none).unwrap_err(),
            "unknown flag: --bogus"
        );
    }

    #[test]
    fn plans_know_prefixes_and_ranges() {
        let flags = |text: &str| {
            let mut flags = Flags::new(WATCH_COMMAND.flags.iter().collect());
            flags.parse(&words_of(text)).unwrap();
            flags
        };
        let made = plan(&flags("--prefix --rev=3"), &words_of("a"), Vec::new()).unwrap();
        assert_eq!(
            (made.key.as_ref(), made.range_end.as_ref(), made.revision),
            (&b"a"[..], &b"b"[..], 3)
        );
        assert!(plan(&flags("--prefix"), &words_of("a b"), Vec::new()).is_err());
        assert_eq!(
            plan(&flags(""), &words_of("a b"), Vec::new())
                .unwrap()
                .range_end,
            "b"
        );
    }

    #[test]
    fn cancellations_have_a_reason() {
        let answer = |canceled, compact_revision, reason: &str| WatchResponse {
            canceled,
            compact_revision,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        assert_eq!(
            cancel_text(&answer(true, 5, "")).as_deref(),
            Some(COMPACTED)
        );
        assert_eq!(cancel_text(&answer(true, 0, "")).as_deref(), Some(FUTURE));
        let denied = "etcdserver: permission denied";
        assert_eq!(
            cancel_text(&answer(true, 0, denied)).as_deref(),
            Some(denied)
        );
        assert_eq!(
            cancel_text(&answer(true, 0, "because")).as_deref(),
            Some("rpc error: code = FailedPrecondition desc = because")
        );
        assert_eq!(cancel_text(&answer(false, 0, "")), None);
    }
}
