//! Conversations of clients with a hub as text: commands, `----`, and the responses they get.
//!
//! With `REWRITE_SCRIPTS=1` in the environment the expected output is written anew instead of compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use quorate_mvcc::{StreamId, WatchCreate, WatchHub, WatchOptions, WatchResponse};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::watch_store::{TestStore, Write, decode};

struct Script {
    store: TestStore,
    hub: WatchHub<TestStore>,
    streams: BTreeMap<String, StreamId>,
    now_ms: u64,
}

const LOG_BYTES: usize = 1 << 20;

impl Script {
    fn new(options: &str) -> Script {
        let mut limits = WatchOptions {
            progress_interval_ms: 1000,
            seed: 1,
            // A response for each revision, so that a script shows which came when.
            live_batch_bytes: 0,
            ..WatchOptions::default()
        };
        let mut log_bytes = LOG_BYTES;
        for (name, value) in options
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            let value: usize = value.parse().unwrap();
            match name {
                "log" => log_bytes = value,
                "outbox" => limits.outbox_bytes_per_watcher = value,
                "fragment" => limits.fragment_bytes = value,
                "together" => limits.live_batch_bytes = value,
                "batch" => limits.batch_revisions_max = value,
                "step" => limits.watchers_per_step = value,
                _ => panic!("unknown option {name}"),
            }
        }
        let store = TestStore::new(log_bytes);
        Script {
            hub: WatchHub::new(store.clone(), limits),
            store,
            streams: BTreeMap::new(),
            now_ms: 0,
        }
    }

    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["write", ..] => {
                let writes = line["write".len()..].split(',').map(parse_write).collect();
                return format!("revision {}\n", self.store.commit(writes));
            }
            ["compact", revision] => self.store.compact(revision.parse().unwrap()),
            ["scrub"] => self.store.scrub(),
            ["restore", ..] => {
                let revisions = line["restore".len()..]
                    .split(';')
                    .filter(|writes| !writes.trim().is_empty());
                let further = revisions
                    .map(|writes| writes.split(',').map(parse_write).collect())
                    .collect();
                self.store = self.store.snapshot(further, LOG_BYTES);
                self.hub.restored(self.store.clone());
            }
            ["tick", ms] => {
                self.now_ms += ms.parse::<u64>().unwrap();
                self.hub.tick(self.now_ms);
            }
            ["advance"] => while self.hub.advance().unwrap() {},
            ["ready"] => {
                let ready = self.hub.take_ready();
                let is_ready = |(_, id): &(&String, &StreamId)| ready.contains(id);
                let names: Vec<&str> = self
                    .streams
                    .iter()
                    .filter(is_ready)
                    .map(|(name, _)| &name[..])
                    .collect();
                return format!(
                    "{}\n",
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(" ")
                    }
                );
            }
            ["stats"] => return format!("{:?}\n", self.hub.stats()),
            ["recv", stream] => return self.receive(stream, usize::MAX),
            ["recv", stream, bytes] => return self.receive(stream, bytes.parse().unwrap()),
            // What reaches a client when its connection keeps up.
            ["all", stream] => {
                let mut out = String::new();
                loop {
                    let has_more = self.hub.advance().unwrap();
                    let responses = self.receive(stream, usize::MAX);
                    if !has_more && responses.is_empty() {
                        return out;
                    }
                    out += &responses;
                }
            }
            _ => self.request(line, &words),
        }
        String::new()
    }

    fn request(&mut self, line: &str, words: &[&str]) {
        let stream = self.stream(words[1]);
        match *words {
            ["create", _, ref options @ ..] => self.hub.create(stream, parse_create(options)),
            ["refuse", name, ..] => {
                let (_, reason) = line.split_once(name).unwrap();
                self.hub.refuse(stream, reason.trim().to_owned());
            }
            ["cancel", _, id] => self.hub.cancel(stream, id.parse().unwrap()),
            ["progress", _] => self.hub.request_progress(stream),
            ["close", name] => {
                self.streams.remove(name);
                self.hub.close_stream(stream);
            }
            _ => panic!("unknown command {line}"),
        }
    }

    fn receive(&mut self, stream: &str, bytes_max: usize) -> String {
        self.hub
            .take(self.streams[stream], bytes_max)
            .iter()
            .map(show)
            .collect()
    }

    fn stream(&mut self, name: &str) -> StreamId {
        *self
            .streams
            .entry(name.to_owned())
            .or_insert_with(|| self.hub.open_stream(self.now_ms))
    }
}

fn parse_create(options: &[&str]) -> WatchCreate {
    let mut request = WatchCreate::default();
    for option in options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("key", key) => request.key = unescape(key).into(),
            ("end", end) => request.range_end = unescape(end).into(),
            ("start", revision) => request.start_revision = revision.parse().unwrap(),
            ("id", id) => request.watch_id = id.parse().unwrap(),
            ("prev", _) => request.prev_kv = true,
            ("noput", _) => request.no_put = true,
            ("nodelete", _) => request.no_delete = true,
            ("notify", _) => request.progress_notify = true,
            ("fragment", _) => request.fragment = true,
            _ => panic!("unknown option {option}"),
        }
    }
    request
}

fn unescape(text: &str) -> String {
    text.replace("\\0", "\0")
}

/// Reads `KEY=VALUE`, or `-KEY` for a deletion.
fn parse_write(text: &str) -> Write {
    let text = text.trim();
    match text.strip_prefix('-') {
        Some(key) => Write::Delete(unescape(key).into()),
        None => {
            let (key, value) = text.split_once('=').unwrap();
            let value = value
                .split_once('*')
                .map_or(value.to_owned(), |(value, times)| {
                    value.repeat(times.parse().unwrap())
                });
            Write::Put(unescape(key).into(), value.into())
        }
    }
}

fn show(response: &WatchResponse) -> String {
    let mut out = format!("{} @{}", response.watch_id, response.revision);
    let flags = [
        ("created", response.created),
        ("canceled", response.canceled),
        ("fragment", response.fragment),
    ];
    for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        write!(out, " {name}").unwrap();
    }
    if response.compact_revision != 0 {
        write!(out, " compacted={}", response.compact_revision).unwrap();
    }
    if !response.cancel_reason.is_empty() {
        write!(out, " {:?}", response.cancel_reason).unwrap();
    }
    if *response
        == (WatchResponse {
            watch_id: response.watch_id,
            revision: response.revision,
            ..Default::default()
        })
    {
        out.push_str(" progress");
    }
    for event in decode(response) {
        write!(out, " [{}]", show_event(&event)).unwrap();
    }
    out.push('\n');
    out
}

fn show_event(event: &Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let mut out = match event.r#type() {
        EventType::Put => format!("put {}", show_pair(kv)),
        EventType::Delete => {
            let bare = KeyValue {
                key: kv.key.clone(),
                mod_revision: kv.mod_revision,
                ..Default::default()
            };
            assert_eq!(*kv, bare, "a deletion has only key and revision");
            format!("del {} {}", kv.key.escape_ascii(), kv.mod_revision)
        }
    };
    if let Some(prev) = &event.prev_kv {
        write!(out, " was {}", show_pair(prev)).unwrap();
    }
    out
}

fn show_pair(kv: &KeyValue) -> String {
    let value = if kv.value.len() > 8 {
        format!("({} bytes)", kv.value.len())
    } else {
        kv.value.escape_ascii().to_string()
    };
    format!(
        "{}={value} {}/{}/{}",
        kv.key.escape_ascii(),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

/// Runs a script, whose first line may hold options, and compares what it prints.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/watch_scripts")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let options = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# options:"))
        .unwrap_or("");
    let mut script = Script::new(options);
    let mut got = String::new();
    for block in text.trim_end().split("\n\n") {
        let (commands, _) = block.split_once("\n----").unwrap_or((block, ""));
        let mut output = String::new();
        for command in commands.lines().filter(|line| !line.starts_with('#')) {
            output += &script.run(command);
        }
        let separator = if output.is_empty() { "" } else { "----\n" };
        write!(got, "{commands}\n{separator}{output}\n").unwrap();
    }
    let got = format!("{}\n", got.trim_end());
    if std::env::var_os("REWRITE_SCRIPTS").is_some() {
        std::fs::File::create(path)
            .unwrap()
            .write_all(got.as_bytes())
            .unwrap();
    } else {
        assert_eq!(got, text, "{name} says otherwise");
    }
}

#[test]
fn creation_follows_the_rules_of_ids_ranges_and_start_revisions() {
    check("create.txt");
}

#[test]
fn events_carry_what_the_watcher_asked_for() {
    check("events.txt");
}

#[test]
fn cancellation_comes_after_what_was_published() {
    check("cancel.txt");
}

#[test]
fn progress_on_request_needs_every_watcher_synced() {
    check("progress.txt");
}

#[test]
fn periodic_progress_goes_to_watchers_without_events() {
    check("notify.txt");
}

#[test]
fn compaction_cancels_whom_it_overtakes() {
    check("compaction.txt");
}

#[test]
fn large_responses_are_split_where_that_was_asked() {
    check("fragments.txt");
}

#[test]
fn a_full_stream_goes_on_when_it_drains() {
    check("slow.txt");
}

#[test]
fn revisions_published_together_are_told_together() {
    check("together.txt");
}

#[test]
fn an_installed_snapshot_is_history_to_watchers() {
    check("restore.txt");
}

#[test]
fn streams_with_output_are_reported_once() {
    check("ready.txt");
}

#[test]
fn a_compaction_spares_whom_the_log_can_serve() {
    check("in_log.txt");
}
