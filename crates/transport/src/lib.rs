//! Links between cluster members in the peer protocol of etcd 3.7.
