//! Plays recorded client calls against a server and compares every answer.
//!
//! A recording is a file of JSON lines, one step each, the answer under `want`:
//!
//! | step | meaning |
//! |---|---|
//! | `{"rpc", "req", "meta"?, "save"?, "want"?}` | a call; `save` keeps fields of the answer under a name, `"$name"` puts one in |
//! | `{"stream", "rpc", "send"}` | sends on a stream, opened when it is new |
//! | `{"stream", "recv": true, "want"}` | all that arrives until the stream is quiet |
//! | `{"stream", "close": true}` | ends a stream |
//! | `{"sleep_ms"}` | waits |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::{Code, Status};

use crate::binary::Binary;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::mask::{Arrived, flatten_watch, join_chunks, mask};
use crate::server::Site;
use crate::wire::{DynamicCodec, Wire, from_json, path, to_json};

/// A stream is quiet when nothing arrived for so long.
const QUIET: Duration = Duration::from_millis(350);
/// How long a busy machine may take until what is wanted has arrived.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests waiting on one stream.
const QUEUE_MAX: usize = 1_024;
/// Recordings played at the same time.
const AT_ONCE: usize = 3;
/// Wrong answers shown of one file.
const SHOWN_MAX: usize = 5;

/// What came of one recording.
#[derive(Debug)]
pub struct Replayed {
    /// Answers compared.
    pub checked: usize,
    /// Those that differ, each with what was wanted and what came.
    pub wrong: Vec<String>,
}

/// Plays every recording in `golden/` whose name begins with `group`, each against a fresh server.
///
/// # Errors
/// Answers differ, or a server or file cannot be used; the text says which.
pub fn replay_group(binary: &Binary, group: &str) -> Outcome<usize> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(&format!("{group}-")) {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(format!("there are no recordings of {group}")));
    }
    files.sort();
    files.reverse();
    let (files, complaints, checked) = (Mutex::new(files), Mutex::new(Vec::new()), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(file) = pop(&files) {
                    match play_on_fresh(binary, &file) {
                        Ok(replayed) => {
                            *lock(&checked) += replayed.checked;
                            lock(&complaints).extend(report(&file, &replayed));
                        }
                        Err(failure) => {
                            lock(&complaints).push(format!("{}: {failure}", file.display()))
                        }
                    }
                }
            });
        }
    });
    let complaints = lock(&complaints).join("\n");
    let checked = *lock(&checked);
    if complaints.is_empty() {
        return Ok(checked);
    }
    Err(Failure::new(complaints))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no player panics")
}

fn pop(files: &Mutex<Vec<PathBuf>>) -> Option<PathBuf> {
    lock(files).pop()
}

fn report(file: &Path, replayed: &Replayed) -> Option<String> {
    if replayed.wrong.is_empty() {
        return None;
    }
    let shown = replayed
        .wrong
        .iter()
        .take(SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    let (wrong, checked) = (replayed.wrong.len(), replayed.checked);
    Some(format!(
        "{}: {wrong} of {checked} answers differ\n{shown}",
        file.display()
    ))
}

fn play_on_fresh(binary: &Binary, file: &Path) -> Outcome<Replayed> {
    let site = Site::new(binary)?;
    let mut server = site.start()?;
    let replayed = replay_file(&site.endpoint(), file)?;
    // A server that died on the way fails the recording even where all answers were right.
    server.kill()?;
    Ok(replayed)
}

/// Plays one recording against the fresh server at `endpoint`.
///
/// # Errors
/// The file is not a recording, or the server is not reached.
pub fn replay_file(endpoint: &str, file: &Path) -> Outcome<Replayed> {
    let text = fs::read_to_string(file)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut player = Player {
            wire: Wire::new(),
            client: Client::connect(endpoint).await?,
            streams: BTreeMap::new(),
            saved: BTreeMap::new(),
        };
        let mut replayed = Replayed {
            checked: 0,
            wrong: Vec::new(),
        };
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let at = format!("line {}", number + 1);
            let mut step: Value =
                serde_json::from_str(line).map_err(|e| Failure::from(e).during(&at))?;
            let want = step.as_object_mut().and_then(|step| step.remove("want"));
            // Recordings are masked already, but for what masking has learned since.
            let rpc = step.get("rpc").and_then(Value::as_str).unwrap_or_default();
            let want = want.map(|want| mask(rpc, want));
            let got = player
                .step(&step, want.as_ref())
                .await
                .map_err(|e| e.during(&at))?;
            if let (Some(want), Some(got)) = (want, got) {
                replayed.checked += 1;
                if got != want {
                    replayed
                        .wrong
                        .push(format!("  {at}: {step}\n    want {want}\n    got  {got}"));
                }
            }
        }
        Ok(replayed)
    })
}

/// A stream and what arrived on it.
struct Stream {
    rpc: String,
    requests: mpsc::Sender<DynamicMessage>,
    inbox: mpsc::UnboundedReceiver<Arrived>,
    pump: JoinHandle<()>,
}

struct Player {
    wire: Wire,
    client: Client,
    streams: BTreeMap<String, Stream>,
    saved: BTreeMap<String, Value>,
}

impl Player {
    /// Performs one step; `None` where a step has no answer.
    async fn step(&mut self, step: &Value, want: Option<&Value>) -> Outcome<Option<Value>> {
        if let Some(millis) = step.get("sleep_ms").and_then(Value::as_u64) {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            return Ok(None);
        }
        if let Some(name) = step.get("stream").and_then(Value::as_str) {
            return self.stream_step(name, step, want).await;
        }
        let rpc = field(step, "rpc")?;
        let method = self.wire.method(rpc)?;
        let request = self.substitute(step.get("req").cloned().unwrap_or_default());
        let request = from_json(method.input(), &request)?;
        let metadata = self.metadata(step)?;
        if method.is_server_streaming() {
            return self
                .read_stream(rpc, &method, request, metadata)
                .await
                .map(Some);
        }
        let codec = DynamicCodec {
            answer: method.output(),
        };
        match self
            .client
            .unary(&path(&method), request, codec, metadata)
            .await
        {
            Ok(answer) => {
                let answer = to_json(&answer)?;
                self.save(step, &answer);
                Ok(Some(json!({"ok": mask(rpc, answer)})))
            }
            Err(status) => Ok(Some(error(&status))),
        }
    }

    async fn read_stream(
        &self,
        rpc: &str,
        method: &MethodDescriptor,
        request: DynamicMessage,
        metadata: MetadataMap,
    ) -> Outcome<Value> {
        let codec = DynamicCodec {
            answer: method.output(),
        };
        let mut answers = match self
            .client
            .server_stream(&path(method), request, codec, metadata)
            .await
        {
            Ok(answers) => answers,
            Err(status) => return Ok(error(&status)),
        };
        let mut messages = Vec::new();
        loop {
            match answers.message().await {
                Ok(Some(message)) => messages.push(mask(rpc, to_json(&message)?)),
                Ok(None) => break,
                Err(status) => return Ok(error(&status)),
            }
        }
        let messages = if rpc == "KV/RangeStream" {
            join_chunks(messages)
        } else {
            Value::Array(messages)
        };
        Ok(json!({"messages": messages}))
    }

    async fn stream_step(
        &mut self,
        name: &str,
        step: &Value,
        want: Option<&Value>,
    ) -> Outcome<Option<Value>> {
        if let Some(message) = step.get("send") {
            let message = self.substitute(message.clone());
            if !self.streams.contains_key(name) {
                let stream = self.open(field(step, "rpc")?, self.metadata(step)?)?;
                self.streams.insert(name.to_owned(), stream);
            }
            let stream = &self.streams[name];
            let message = from_json(self.wire.method(&stream.rpc)?.input(), &message)?;
            // A stream that the server has ended shows that at the next look at what arrived.
            let _ = stream.requests.send(message).await;
            return Ok(None);
        }
        if step.get("close").is_some() {
            self.streams.remove(name);
            return Ok(None);
        }
        let stream = self
            .streams
            .get_mut(name)
            .ok_or_else(|| Failure::new(format!("there is no stream {name}")))?;
        Ok(Some(stream.receive(want).await))
    }

    /// Opens a stream and collects what arrives on it.
    fn open(&self, rpc: &str, metadata: MetadataMap) -> Outcome<Stream> {
        let method = self.wire.method(rpc)?;
        let (requests, outbox) = mpsc::channel(QUEUE_MAX);
        let (sender, inbox) = mpsc::unbounded_channel();
        let client = self.client.clone();
        let pump = tokio::spawn(async move {
            let codec = DynamicCodec {
                answer: method.output(),
            };
            let last = match client
                .both_ways(&path(&method), outbox, codec, metadata)
                .await
            {
                Ok(mut answers) => loop {
                    match answers.message().await {
                        Ok(Some(message)) => {
                            let message =
                                to_json(&message).unwrap_or_else(|e| json!(e.to_string()));
                            if sender.send(Arrived::Message(message)).is_err() {
                                return;
                            }
                        }
                        Ok(None) => break Arrived::End,
                        Err(status) => break Arrived::Error(error(&status)),
                    }
                },
                Err(status) => Arrived::Error(error(&status)),
            };
            // Nobody looks at a stream that was closed.
            let _ = sender.send(last);
        });
        Ok(Stream {
            rpc: rpc.to_owned(),
            requests,
            inbox,
            pump,
        })
    }

    fn metadata(&self, step: &Value) -> Outcome<MetadataMap> {
        let mut metadata = MetadataMap::new();
        let Some(Value::Object(meta)) = step.get("meta").map(|meta| self.substitute(meta.clone()))
        else {
            return Ok(metadata);
        };
        for (name, value) in meta {
            let bad = || Failure::new(format!("bad metadata {name}: {value}"));
            let key: MetadataKey<tonic::metadata::Ascii> = name.parse().map_err(|_| bad())?;
            let value = value
                .as_str()
                .and_then(|v| v.parse().ok())
                .ok_or_else(bad)?;
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    fn save(&mut self, step: &Value, answer: &Value) {
        for (name, from) in step
            .get("save")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let value = answer.get(from.as_str().unwrap_or_default()).cloned();
            self.saved.insert(name.clone(), value.unwrap_or_default());
        }
    }

    /// Puts saved values in the place of their names.
    fn substitute(&self, value: Value) -> Value {
        match value {
            Value::String(text) => {
                match text.strip_prefix('$').and_then(|name| self.saved.get(name)) {
                    Some(saved) => saved.clone(),
                    None => Value::String(text),
                }
            }
            Value::Array(items) => items
                .into_iter()
                .map(|item| self.substitute(item))
                .collect(),
            Value::Object(object) => object
                .into_iter()
                .map(|(name, value)| (name, self.substitute(value)))
                .collect(),
            other => other,
        }
    }
}

impl Stream {
    /// All that arrives until the stream is quiet; waits longer while that is not what is wanted.
    async fn receive(&mut self, want: Option<&Value>) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut arrived = Vec::new();
        loop {
            while let Ok(Some(item)) = timeout(QUIET, self.inbox.recv()).await {
                arrived.push(item);
            }
            let got = json!({"messages": self.show(&arrived)});
            if want.is_none_or(|want| got == *want)
                || Instant::now() > deadline
                || self.inbox.is_closed()
            {
                return got;
            }
        }
    }

    fn show(&self, arrived: &[Arrived]) -> Value {
        if self.rpc == "Watch/Watch" {
            return flatten_watch(arrived);
        }
        arrived
            .iter()
            .cloned()
            .map(|item| item.plain(&self.rpc))
            .collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

fn field<'a>(step: &'a Value, name: &str) -> Outcome<&'a str> {
    let value = step.get(name).and_then(Value::as_str);
    value.ok_or_else(|| Failure::new(format!("the step has no {name}")))
}

fn error(status: &Status) -> Value {
    json!({"error": {"code": code_name(status.code()), "message": status.message()}})
}

/// A status code as gRPC writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
