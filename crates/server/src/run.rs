//! Starting and stopping a member: which thread does what, in which order.
use std::io;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};

use quorate_core::{Handles, Member};
use quorate_disk::{Disk, RealDisk};
use quorate_proto::etcdserverpb as pb;
use quorate_rpc::{
    Clock, FrontDoor, Leader, LeaderLink, Mailboxes, Registry, ServiceOptions, Services, Stop,
};
use quorate_transport::Transport;

use crate::bootstrap::{self, Opened, Start};
use crate::calls::{Calls, Switch};
use crate::config::{Config, Url};
use crate::data_dir;
use crate::defragment;
use crate::engine::{Ended, Engine, SharedEngine};
use crate::installer::Installer;
use crate::join;
use crate::log::{Level, Logger, Record};
use crate::metrics::{MeteredDisk, Metrics};
use crate::no_sync::NoSyncDisk;
use crate::observe::{self, MetricsServer};
use crate::peers::{self, Forward};
use crate::queue::{Event, Queue};
use crate::raft_lines::RaftLines;
use crate::recovery;
use crate::scheduling::{LOOK_INTERVAL, Scheduling};
use crate::settings::{self, connection_threads, door_options, member_config, service_options};
use crate::signals;
use crate::start_lines;
use crate::workers::{WorkerOptions, Workers};

/// Largest `--max-request-bytes`: what the log takes as one entry, with room to spare.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// What the main thread waits for.
enum Turn {
    Ready,
    Signal(&'static str),
    EngineEnded(Ended),
}

/// Runs a member until it is told to stop or cannot go on.
///
/// Returns the process' exit code: 0 after an orderly stop, 1 when it did not start or ended by itself.
pub fn run(config: &Config, logger: &Logger) -> ExitCode {
    let started = data_dir::inspect(&config.data_dir, logger).and_then(|()| start(config, logger));
    let code = match started {
        Ok(code) => {
            start_lines::closing(config, logger, "closed etcd server");
            code
        }
        Err(error) => {
            // etcd says this whatever the cause is.
            logger.write(&Record::new(Level::Fatal, "discovery failed").text("error", error));
            ExitCode::from(1)
        }
    };
    logger.flush();
    if code == ExitCode::SUCCESS {
        signals::end_by_received();
    }
    code
}

fn start(config: &Config, logger: &Logger) -> Result<ExitCode, String> {
    if config.max_request_bytes > REQUEST_BYTES_MAX {
        return Err(format!(
            "--max-request-bytes may be at most {REQUEST_BYTES_MAX}"
        ));
    }
    start_lines::listening(config, logger);
    let listeners = listen(&config.listen_client_urls)?;
    let metrics_listeners = listen(&config.listen_metrics_urls)?;
    let peer_listeners = listen(&config.listen_peer_urls)?;
    let disk: Arc<dyn Disk> = if config.unsafe_no_fsync {
        Arc::new(NoSyncDisk)
    } else {
        Arc::new(RealDisk)
    };
    let metrics = Metrics::new();
    let disk: Arc<dyn Disk> = Arc::new(MeteredDisk::new(disk, metrics.clone(), config.wal_dir()));
    let (opened, recovery, remotes) = open(config, &disk)
        .inspect_err(|error| tracing::error!(error = %error, "bootstrap failed"))?;
    start_lines::opened(config, logger, &opened);
    let clock = Clock::start();
    let (turns, wait) = channel();
    watch_signals(turns.clone()).map_err(|e| format!("cannot watch signals: {e}"))?;
    let threads = connection_threads();
    // One more than connections have, for the metrics listeners.
    let mailboxes = Mailboxes::new(threads + 1);
    let queue = Queue::default();
    let Started {
        handles,
        transport,
        leader,
        engine,
    } = start_engine(
        config,
        opened,
        clock,
        &queue,
        &metrics,
        &mailboxes,
        &turns,
        Others {
            listeners: peer_listeners,
            recovery,
            remotes,
            logger,
        },
    )?;
    let mut registry = observe::registry(config, logger, &metrics, &handles, threads + 1);
    registry.add_source(peers::metrics_source(transport, handles.view.member_id()));
    let registry = Arc::new(registry);
    let metrics_server = MetricsServer::start(
        metrics_listeners,
        threads,
        &handles,
        &mailboxes,
        &registry,
        clock,
        service_options(config),
    )
    .map_err(|e| format!("cannot serve metrics: {e}"))?;
    let options = door_options(config, threads);
    let door = FrontDoor::new(listeners, &options, clock, &registry)
        .map_err(|e| format!("cannot serve clients: {e}"))?;
    let ended = serve(
        config, logger, &wait, door, &handles, &mailboxes, &registry, clock, &queue, &leader,
    );
    if let Some(server) = metrics_server {
        server.close();
    }
    drop(handles);
    // The engine has ended or was told to; its thread ends with it.
    let _ = engine.join();
    Ok(ended)
}

/// Waits for readiness, serves, waits for the end, and ends in order: front door, engine, disk.
#[expect(
    clippy::too_many_arguments,
    reason = "the ends of everything that was started, each used once"
)]
fn serve(
    config: &Config,
    logger: &Logger,
    wait: &Receiver<Turn>,
    door: FrontDoor,
    handles: &Handles,
    mailboxes: &Mailboxes,
    registry: &Arc<Registry>,
    clock: Clock,
    queue: &Queue,
    leader: &Arc<dyn Leader>,
) -> ExitCode {
    let mut door = Some(door);
    let mut serving = None;
    let mut scheduling = Scheduling::new();
    loop {
        match wait.recv_timeout(LOOK_INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {
                let is_alone = handles.view.reads_are_linearizable();
                scheduling.look(mailboxes.take_most_waiting(), is_alone);
            }
            Ok(Turn::Ready) => {
                tracing::info!("ready to serve client requests");
                if let Some(door) = door.take() {
                    serving = Some(open_door(
                        config, door, handles, mailboxes, registry, clock, leader,
                    ));
                }
            }
            Ok(Turn::Signal(name)) => {
                tracing::info!(signal = name, "received signal; shutting down");
                start_lines::closing(config, logger, "closing etcd server");
                if let Some(serving) = serving.take() {
                    Serving::close(serving);
                }
                queue.push(Event::Stop);
            }
            Ok(Turn::EngineEnded(Ended::Stopped)) => return ExitCode::SUCCESS,
            Ok(Turn::EngineEnded(Ended::Removed)) => {
                let why = "the member has been permanently removed from the cluster";
                tracing::warn!(error = why, "server error");
                tracing::warn!("data-dir" = %config.data_dir.display(), "data-dir used by this member must be removed");
                return ExitCode::SUCCESS;
            }
            Ok(Turn::EngineEnded(Ended::Fatal(why))) => {
                // Nothing is acknowledged any more; waiting for callers would only delay the restart that recovers.
                tracing::error!(error = %why, "the member cannot go on");
                return ExitCode::from(1);
            }
            Err(RecvTimeoutError::Disconnected) => return ExitCode::from(1),
        }
    }
}

/// The open front door.
struct Serving {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Lets the calls under way end and waits for the connection threads.
    fn close(self) {
        self.stop.stop();
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn open_door(
    config: &Config,
    door: FrontDoor,
    handles: &Handles,
    mailboxes: &Mailboxes,
    registry: &Arc<Registry>,
    clock: Clock,
    leader: &Arc<dyn Leader>,
) -> Serving {
    let FrontDoor { workers, stop } = door;
    let options = ServiceOptions {
        leader: LeaderLink(Some(leader.clone())),
        ..service_options(config)
    };
    let mut threads = Vec::new();
    for worker in workers {
        let index = worker.index();
        let (handles, mailboxes) = (handles.clone(), mailboxes.clone());
        let (registry, mut options) = (registry.clone(), options.clone());
        options.seed = options.seed.wrapping_add(index as u64);
        let serve = move || {
            let services = || Services::new(index, handles, mailboxes, registry, clock, options);
            if let Err(e) = worker.run(services) {
                tracing::error!(error = %e, "a connection thread ended");
            }
        };
        match thread::Builder::new()
            .name(format!("conn-{index}"))
            .spawn(serve)
        {
            Ok(thread) => threads.push(thread),
            Err(e) => tracing::error!(error = %e, "cannot start a connection thread"),
        }
    }
    for url in &config.listen_client_urls {
        tracing::info!(
            traffic = "grpc+http",
            address = %format_args!("{}:{}", url.host(), url.port()),
            "serving client traffic insecurely; this is strongly discouraged!"
        );
    }
    Serving { stop, threads }
}

fn listen(urls: &[Url]) -> Result<Vec<TcpListener>, String> {
    let bind = |url: &Url| {
        let host = if url.host() == "localhost" {
            "127.0.0.1"
        } else {
            url.host()
        };
        TcpListener::bind((host, url.port()))
            .map_err(|e| start_lines::listen_error(&format!("{host}:{}", url.port()), &e))
    };
    urls.iter().map(bind).collect()
}

/// Opens the data, and says what restoring took and whom a member that joins may ask.
fn open(
    config: &Config,
    disk: &Arc<dyn Disk>,
) -> Result<(Opened, recovery::Options, Vec<pb::Member>), String> {
    // A member that has data ignores what a new cluster would begin with, as etcd does.
    let wal_dir = config.wal_dir();
    let has_log = quorate_wal::Wal::exists(disk.as_ref(), &wal_dir).unwrap_or(false);
    let start = match config.bootstrap() {
        Ok(initial) if has_log && initial.joins => Start::Restart,
        Ok(initial) if has_log => join::found(config, &initial),
        Ok(initial) => join::start(config, &initial)?,
        Err(_) if has_log => Start::Restart,
        Err(e) => return Err(e.to_string()),
    };
    let options = settings::bootstrap(config, start);
    let opened = bootstrap::open(disk, &options).map_err(|e| e.to_string())?;
    if config.bootstrap_defragment_bytes > 0 {
        defragment::at_start(config, &opened.stores.backend).map_err(|e| e.to_string())?;
    }
    let remotes = match options.start {
        Start::Join { members, .. } => members,
        Start::Restart | Start::Found { .. } => Vec::new(),
    };
    Ok((opened, options.recovery, remotes))
}

/// What the links to other members are made of.
struct Others<'a> {
    logger: &'a Logger,
    listeners: Vec<TcpListener>,
    recovery: recovery::Options,
    /// Members of the cluster that this one joins.
    remotes: Vec<pb::Member>,
}

/// A running engine.
struct Started {
    handles: Handles,
    transport: Transport,
    leader: Arc<dyn Leader>,
    engine: JoinHandle<()>,
}

#[expect(
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "the ends of everything that the engine is connected to, each used once"
)]
fn start_engine(
    config: &Config,
    opened: Opened,
    clock: Clock,
    queue: &Queue,
    metrics: &Metrics,
    mailboxes: &Mailboxes,
    turns: &Sender<Turn>,
    others: Others<'_>,
) -> Result<Started, String> {
    let member_config = member_config(config, &opened);
    let is_new = opened.is_new;
    let teller = start_lines::teller(config, others.logger, &opened);
    start_lines::serving(config, others.logger, &opened);
    let Opened {
        member_id,
        wal,
        log,
        stores,
        snapshotter,
        place,
        lock,
        ..
    } = opened;
    let tick = config.heartbeat_interval;
    let raft_lines = RaftLines::root(others.logger, member_id);
    let mut member = Member::new(member_config, log, stores, &raft_lines, clock.now_ms())
        .map_err(|e| format!("cannot start raft: {e}"))?;
    member.set_stopwatch(observe::stopwatch(config));
    let stores = member.stores();
    let handles = Handles {
        intake: Arc::new(queue.clone()),
        view: member.view(),
        live: member.live(),
        auth: stores.auth.reader(),
    };
    let options = WorkerOptions {
        compaction_pause: config.compaction_sleep_interval,
        keep_snapshots: config
            .max_snapshots
            .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)),
    };
    let workers = Workers::start(wal, snapshotter, queue, metrics, &options)
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let installer = Installer {
        place: Arc::new(place),
        recovery: Arc::new(others.recovery),
        queue: queue.clone(),
        metrics: metrics.clone(),
        passed: Arc::default(),
    };
    let calls = Calls::new(queue.clone());
    let links = peers::start(peers::Start {
        config,
        handles: &handles,
        calls: &calls,
        installer: &installer,
        queue,
        clock,
        listeners: others.listeners,
        remotes: &others.remotes,
        is_new,
    })?;
    let transport = links.transport.clone();
    let leader: Arc<dyn Leader> = Arc::new(Forward {
        transport: transport.clone(),
        view: handles.view.clone(),
    });
    let ready = turns.clone();
    let engine = SharedEngine::new(Engine {
        member,
        queue: queue.clone(),
        workers,
        outlet: Switch {
            door: mailboxes.clone(),
            calls,
        },
        tick,
        clock,
        links,
        installer,
        teller,
        removed_ms: None,
        on_ready: Some(Box::new(move || {
            let _ = ready.send(Turn::Ready);
        })),
    });
    let ended = turns.clone();
    let thread = thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let outcome = engine.run();
            drop(lock);
            let _ = ended.send(Turn::EngineEnded(outcome));
        })
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    Ok(Started {
        handles,
        transport,
        leader,
        engine: thread,
    })
}

/// Turns the signals that ask for an end into turns of the main thread.
fn watch_signals(turns: Sender<Turn>) -> io::Result<()> {
    use rustix::process::Signal;
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let watch = move || {
        runtime.block_on(async move {
            tokio::select! {
                _ = terminate.recv() => {
                    signals::received(Signal::TERM);
                    let _ = turns.send(Turn::Signal("terminated"));
                }
                _ = interrupt.recv() => {
                    signals::received(Signal::INT);
                    let _ = turns.send(Turn::Signal("interrupt"));
                }
            }
        });
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)?;
    Ok(())
}
