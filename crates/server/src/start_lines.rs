//! Lines of a start and of an end, in the words that tools look for in etcd's log.
//!
//! Source: etcd v3.7.1 server/embed/etcd.go, server/etcdserver/bootstrap.go, server/etcdserver/server.go.
use std::io;
use std::time::Duration;

use quorate_core::{ClusterMember, request_timeout_ms};

use crate::bootstrap::Opened;
use crate::config::{Config, Url};
use crate::log::{Level, Logger, Record};
use crate::settings::ms;
use crate::tell::{Teller, short};
use crate::version;

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// Tells where the member is going to listen.
pub(crate) fn listening(config: &Config, logger: &Logger) {
    logger.write(
        &Record::new(Level::Info, "configuring peer listeners")
            .list("listen-peer-urls", texts(&config.listen_peer_urls)),
    );
    logger.write(
        &Record::new(Level::Info, "configuring client listeners")
            .list("listen-client-urls", texts(&config.listen_client_urls)),
    );
}

/// Tells what was found in the data directory, or made in it.
pub(crate) fn opened(config: &Config, logger: &Logger, opened: &Opened) {
    logger.write(&config.start_line(!opened.is_new));
    if let Some(torn) = &opened.torn_tail {
        // A warning, not etcd's information: sectors that the disk lost after a sync look like a torn tail, too.
        logger.write(
            &Record::new(Level::Warn, "repaired WAL")
                .text("path", torn.path.to_string_lossy())
                .uint("offset", torn.offset)
                .uint("bytes", torn.bytes),
        );
    }
    let (member_id, cluster_id) = (opened.member_id.to_string(), opened.cluster_id.to_string());
    let applied = opened.stores.backend.applied().index;
    let record = if opened.is_new {
        Record::new(Level::Info, "starting local member")
            .text("local-member-id", member_id.as_str())
            .text("cluster-id", cluster_id.as_str())
    } else {
        Record::new(Level::Info, "restarting local member")
            .text("cluster-id", cluster_id.as_str())
            .text("local-member-id", member_id.as_str())
            .uint("commit-index", opened.log.hard_state.commit)
    };
    logger.write(
        &record
            .uint("applied-index", applied)
            .text("wal-dir", opened.wal_dir.to_string_lossy()),
    );
    let cluster = &opened.stores.cluster;
    let recovered = |member: &ClusterMember| {
        Record::new(Level::Info, "recovered/added member from store")
            .text("cluster-id", cluster_id.as_str())
            .text("local-member-id", member_id.as_str())
            .text("recovered-remote-peer-id", format!("{:x}", member.id))
            .list(
                "recovered-remote-peer-urls",
                member.peer_urls.iter().cloned(),
            )
            .switch("recovered-remote-peer-is-learner", member.is_learner)
    };
    cluster.members().for_each(|m| logger.write(&recovered(m)));
    if !cluster.version().is_empty() {
        logger.write(
            &Record::new(Level::Info, "set cluster version from store")
                .text("cluster-version", short(cluster.version())),
        );
    }
}

/// Tells that the member begins its work.
pub(crate) fn serving(config: &Config, logger: &Logger, opened: &Opened) {
    let member_id = opened.member_id.to_string();
    let version = match opened.stores.cluster.version() {
        "" => "to_be_decided",
        version => short(version),
    };
    logger.write(
        &Record::new(Level::Info, "starting etcd server")
            .text("local-member-id", member_id.as_str())
            .text("local-server-version", version::ETCD_VERSION)
            .text("cluster-id", opened.cluster_id.to_string())
            .text("cluster-version", version),
    );
    logger.write(
        &Record::new(Level::Info, "now serving peer/client/metrics")
            .text("local-member-id", member_id)
            .list(
                "initial-advertise-peer-urls",
                texts(&config.initial_advertise_peer_urls),
            )
            .list("listen-peer-urls", texts(&config.listen_peer_urls))
            .list(
                "advertise-client-urls",
                texts(&config.advertise_client_urls),
            )
            .list("listen-client-urls", texts(&config.listen_client_urls))
            .list("listen-metrics-urls", texts(&config.listen_metrics_urls)),
    );
    if config.initial_election_tick_advance {
        logger.write(
            &Record::new(Level::Info, "starting initial election tick advance")
                .uint("election-ticks", config.election_ticks.into()),
        );
    }
}

/// Tells that the member is to end, or has ended.
pub(crate) fn closing(config: &Config, logger: &Logger, message: &'static str) {
    logger.write(
        &Record::new(Level::Info, message)
            .text("name", config.name.as_str())
            .text("data-dir", config.data_dir.to_string_lossy())
            .list(
                "advertise-peer-urls",
                texts(&config.initial_advertise_peer_urls),
            )
            .list(
                "advertise-client-urls",
                texts(&config.advertise_client_urls),
            ),
    );
}

/// Returns who tells what happens to the member while it runs.
pub(crate) fn teller(config: &Config, logger: &Logger, opened: &Opened) -> Teller {
    Teller {
        logger: logger.clone(),
        cluster_id: opened.cluster_id,
        member_id: opened.member_id,
        name: config.name.clone(),
        client_urls: texts(&config.advertise_client_urls),
        tick: config.heartbeat_interval,
        election_ticks: config.election_ticks as usize,
        snapshot_count: config.snapshot_count,
        request_timeout: Duration::from_millis(request_timeout_ms(ms(config.election_timeout()))),
    }
}

/// Says why an address cannot be listened at, as Go does.
pub(crate) fn listen_error(address: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let why = text.split(" (os error").next().unwrap_or(&text);
    format!("listen tcp {address}: bind: {}", why.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_told_of_as_by_etcd() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = std::net::TcpListener::bind(address).unwrap_err();
        assert_eq!(
            listen_error(&address.to_string(), &error),
            format!("listen tcp {address}: bind: address already in use")
        );
    }
}
