//! What the methods do, with no type of an HTTP library in sight.
mod auth;
mod cluster;
mod context;
mod defragment;
mod desk;
mod endpoints;
mod health;
mod kv;
mod lease;
mod maintenance;
mod measure;
mod reflection;
mod snapshot;
mod vigil;
mod watch;

pub use context::ServiceOptions;
pub use defragment::{DefragmentLog, DefragmentNews};

use std::rc::Rc;

use bytes::Bytes;
use quorate_core::Handles;

use self::context::Context;
use crate::clock::Clock;
use crate::engine::Mailboxes;
use crate::metadata::{ClientApiVersion, Metadata};
use crate::method::Method;
use crate::metrics::Registry;
use crate::seam::{Answer, HttpRequest, HttpResponse, Inbound, Later, Outbound, Service};
use crate::status::Status;

/// The services of one connection thread.
pub struct Services {
    context: Rc<Context>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// Makes the services of the thread with this number. To be called inside [`Worker::run`](crate::Worker::run): it
    /// spawns the task that carries batches to and from the engine.
    pub fn new(
        thread: usize,
        handles: Handles,
        mailboxes: Mailboxes,
        registry: std::sync::Arc<Registry>,
        clock: Clock,
        options: ServiceOptions,
    ) -> Self {
        let context = Context::new(thread, handles, mailboxes, registry, clock, options);
        tokio::task::spawn_local(context::pump(context.clone()));
        Self { context }
    }

    /// Checks what every call is checked for, and counts it.
    ///
    /// Source: etcd v3.7.1 server/etcdserver/api/v3rpc/interceptor.go.
    fn admit(
        &self,
        method: Method,
        metadata: &Metadata,
        is_stream: bool,
        body: &Bytes,
    ) -> Result<(), Status> {
        let context = &self.context;
        let view = &context.handles.view;
        if view.is_learner() && !is_for_learners(method, body) {
            return Err(Status::NOT_SUPPORTED_FOR_LEARNER);
        }
        if metadata.client_api_version == ClientApiVersion::Invalid {
            return Err(Status::INVALID_CLIENT_API_VERSION);
        }
        context
            .metrics
            .client_request(is_stream, &metadata.client_api_version);
        if metadata.has_leader && view.leader().0 == 0 {
            return Err(Status::NO_LEADER);
        }
        Ok(())
    }
}

/// Says whether a learner answers the call: `Status`, serializable `Range`, and the stream `Snapshot`.
fn is_for_learners(method: Method, body: &Bytes) -> bool {
    match method {
        Method::MaintenanceStatus | Method::MaintenanceSnapshot => true,
        Method::KvRange => kv::is_serializable(body),
        _ => false,
    }
}

impl Service for Services {
    fn unary(&self, method: Method, metadata: Metadata, body: Bytes) -> Answer {
        if let Err(status) = self.admit(method, &metadata, false, &body) {
            return Answer::Now(Err(status));
        }
        let context = &self.context;
        match method {
            Method::KvRange => kv::range(context, &metadata, body),
            Method::KvPut => kv::put(context, &metadata, body),
            Method::KvDeleteRange => kv::delete_range(context, &metadata, body),
            Method::KvTxn => kv::txn(context, &metadata, body),
            Method::KvCompact => kv::compact(context, &metadata, body),
            Method::LeaseGrant => lease::grant(context, &metadata, body),
            Method::LeaseRevoke => lease::revoke(context, &metadata, body),
            Method::LeaseTimeToLive => lease::time_to_live(context, metadata, body),
            Method::LeaseLeases => lease::leases(context, metadata),
            Method::ClusterMemberList => cluster::member_list(context, metadata, body),
            Method::ClusterMemberAdd => cluster::member_add(context, metadata, body),
            Method::ClusterMemberRemove => cluster::member_remove(context, metadata, body),
            Method::ClusterMemberUpdate => cluster::member_update(context, metadata, body),
            Method::ClusterMemberPromote => cluster::member_promote(context, metadata, body),
            Method::MaintenanceDowngrade => maintenance::downgrade(context, metadata, body),
            Method::MaintenanceAlarm => maintenance::alarm(context, &metadata, body),
            Method::MaintenanceStatus => maintenance::status(context, &metadata),
            Method::MaintenanceHash => maintenance::hash(context, &metadata),
            Method::MaintenanceHashKv => maintenance::hash_kv(context, &metadata, body),
            Method::MaintenanceDefragment => defragment::defragment(context, &metadata),
            Method::MaintenanceMoveLeader => maintenance::move_leader(context, &metadata, body),
            Method::AuthAuthenticate => auth::authenticate(context, body),
            Method::HealthList => health::list(context),
            Method::HealthCheck => health::check(context, body),
            method if method.service() == Method::AuthEnable.service() => {
                auth::manage(context, &metadata, method, body)
            }
            // What etcd has and this server has not yet.
            method => Answer::Now(Err(Status::unknown_method(method.service(), method.name()))),
        }
    }

    fn stream(
        &self,
        method: Method,
        metadata: Metadata,
        inbound: Inbound,
        outbound: Outbound,
    ) -> Later<Result<(), Status>> {
        let admitted = self.admit(method, &metadata, true, &Bytes::new());
        let context = self.context.clone();
        Box::pin(async move {
            admitted?;
            let has_leader = metadata.has_leader;
            let served = serve_stream(context.clone(), method, metadata, inbound, outbound);
            if !has_leader {
                return served.await;
            }
            tokio::select! {
                end = served => end,
                () = context.leader_lost() => Err(Status::NO_LEADER),
            }
        })
    }

    fn http(&self, request: HttpRequest) -> Later<HttpResponse> {
        let context = self.context.clone();
        Box::pin(async move { endpoints::answer(&context, &request).await })
    }

    fn stop(&self) {
        self.context.stop();
    }

    fn tick(&self, now_ms: u64) {
        self.context.tick(now_ms);
    }
}

async fn serve_stream(
    context: Rc<Context>,
    method: Method,
    metadata: Metadata,
    inbound: Inbound,
    outbound: Outbound,
) -> Result<(), Status> {
    match method {
        Method::KvRangeStream => kv::range_stream(context, metadata, inbound, outbound).await,
        Method::WatchWatch => watch::serve(context, metadata, inbound, outbound).await,
        Method::LeaseKeepAlive => lease::keep_alive(context, metadata, inbound, outbound).await,
        Method::MaintenanceSnapshot => snapshot::serve(context, metadata, inbound, outbound).await,
        Method::HealthWatch => health::watch(context, inbound, outbound).await,
        Method::ReflectionV1 => reflection::serve_v1(inbound, outbound).await,
        Method::ReflectionV1Alpha => reflection::serve_v1alpha(inbound, outbound).await,
        method => Err(Status::unknown_method(method.service(), method.name())),
    }
}
