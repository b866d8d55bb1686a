//! Starting the links to other members.
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use quorate_core::Handles;
use quorate_proto::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_rpc::Clock;
use quorate_transport::{ImageDirectory, Parts, Transport};

use super::arrivals::Arrivals;
use super::receiver::Inlet;
use super::service::PeerService;
use super::{Links, Monitor, States, monitor};
use crate::calls::Calls;
use crate::config::{Config, Gate, Url};
use crate::installer::Installer;
use crate::queue::Queue;
use crate::settings::ms;
use crate::version;

/// What the links are connected to.
pub(crate) struct Start<'a> {
    pub(crate) config: &'a Config,
    pub(crate) handles: &'a Handles,
    pub(crate) calls: &'a Calls,
    pub(crate) installer: &'a Installer,
    pub(crate) queue: &'a Queue,
    pub(crate) clock: Clock,
    pub(crate) listeners: Vec<TcpListener>,
    /// Members of the cluster that this one joins, known before its log is.
    pub(crate) remotes: &'a [pb::Member],
    /// Whether this is the member's first start.
    pub(crate) is_new: bool,
}

/// Starts the links: a runtime of their own, the listeners, what is asked from time to time.
///
/// # Errors
/// When they cannot be started, or when the member's data contradicts that of others and it was to be checked.
pub(crate) fn start(start: Start<'_>) -> Result<Links, String> {
    let runtime = run().map_err(|e| format!("cannot start the links to other members: {e}"))?;
    let view = start.handles.view.clone();
    let states = States::new(view.clone(), start.queue.clone());
    let images = ImageDirectory::open(&start.installer.place.snap_dir)
        .map_err(|e| format!("cannot use the directory of snapshots: {e}"))?;
    let election_ms = ms(start.config.election_timeout());
    let timeout = Duration::from_millis(quorate_core::request_timeout_ms(election_ms));
    let to_leader = Arc::new(OnceLock::new());
    let parts = Parts {
        receiver: Arc::new(Inlet {
            queue: start.queue.clone(),
            installer: start.installer.clone(),
        }),
        service: Arc::new(PeerService {
            calls: start.calls.clone(),
            queue: start.queue.clone(),
            view: view.clone(),
            live: start.handles.live.clone(),
            auth: start.handles.auth.clone(),
            clock: start.clock,
            transport: Arc::clone(&to_leader),
            timeout,
        }),
        images: Arc::new(states.clone()),
        store: Arc::new(Arrivals::new(images, start.installer.clone())),
    };
    let transport = Transport::start(settings(&start), parts, runtime.clone())
        .map_err(|e| format!("cannot start the links to other members: {e}"))?;
    // It is the only one that sets it.
    let _ = to_leader.set(transport.clone());
    for listener in start.listeners {
        let address = transport
            .listen(listener)
            .map_err(|e| format!("cannot serve other members: {e}"))?;
        tracing::info!(address = %address, "serving peer traffic");
    }
    // They are dialed, so that one of them says so should this member be removed before it has heard anything.
    for member in start.remotes {
        let id = MemberId(member.id);
        if id != view.member_id() && transport.add_peer(id, &member.peer_ur_ls).is_err() {
            tracing::warn!("remote-peer-id" = %id, urls = ?member.peer_ur_ls, "cannot reach a member of the cluster");
        }
    }
    let monitor = Monitor {
        transport: transport.clone(),
        runtime: runtime.clone(),
        view,
        live: start.handles.live.clone(),
        auth: start.handles.auth.clone(),
        calls: start.calls.clone(),
        queue: start.queue.clone(),
        timeout,
    };
    watch(start.config, &monitor, start.is_new)?;
    Ok(Links {
        transport,
        states,
        monitor,
        zero: start.clock.instant_of(0),
    })
}

/// Starts the checks that were asked for.
fn watch(config: &Config, monitor: &Monitor, is_new: bool) -> Result<(), String> {
    if config.feature_gates.is_enabled(Gate::InitialCorruptCheck) && !is_new {
        monitor.runtime.block_on(monitor::check_at_start(monitor))?;
    }
    monitor.compare_digests();
    if !config.corrupt_check_time.is_zero() {
        monitor.check_periodically(config.corrupt_check_time);
    }
    if config.feature_gates.is_enabled(Gate::CompactHashCheck) {
        monitor.check_compactions(config.compact_hash_check_time);
    }
    Ok(())
}

fn settings(start: &Start<'_>) -> quorate_transport::Config {
    let view = &start.handles.view;
    let urls = &start.config.initial_advertise_peer_urls;
    quorate_transport::Config {
        server_version: version::ETCD_VERSION.to_owned(),
        peer_urls: urls
            .iter()
            .map(|url: &Url| url.as_str().to_owned())
            .collect(),
        election_timeout: start.config.election_timeout(),
        read_timeout: start.config.links.read_timeout,
        write_timeout: start.config.links.write_timeout,
        local_address: start.config.links.local_address,
        ..quorate_transport::Config::new(view.member_id(), view.cluster_id())
    }
}

/// Runs a runtime on a thread of its own for as long as the process lives.
fn run() -> std::io::Result<tokio::runtime::Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("peers".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}
