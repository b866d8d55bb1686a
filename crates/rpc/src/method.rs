//! Every gRPC method by number, so that counters are arrays and dispatch is a jump.

/// How many messages go each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl Kind {
    /// Returns the value of the metrics' label `grpc_type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// What a request's path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// A method.
    Found(Method),
    /// A service we have, and a method that it has not.
    UnknownMethod {
        /// The service.
        service: &'a str,
        /// The method.
        method: &'a str,
    },
    /// A service we do not have.
    UnknownService(&'a str),
    /// No path of the form `/service/method`.
    Malformed,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $id:ident $kind:ident $path:literal,)*) => {
        /// A gRPC method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Method {
            $(#[doc = concat!("`", $path, "`")] $id,)*
        }

        impl Method {
            /// All methods, in the order of their numbers.
            pub const ALL: &'static [Method] = &[$(Method::$id,)*];

            /// How many methods there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns the path, `/service/method`.
            pub fn path(self) -> &'static str {
                match self { $(Self::$id => $path,)* }
            }

            /// Returns how many messages go each way.
            pub fn kind(self) -> Kind {
                match self { $(Self::$id => Kind::$kind,)* }
            }

            fn of_path(path: &str) -> Option<Self> {
                match path { $($path => Some(Self::$id),)* _ => None }
            }
        }
    };
}

methods! {
    KvRange Unary "/etcdserverpb.KV/Range",
    KvPut Unary "/etcdserverpb.KV/Put",
    KvTxn Unary "/etcdserverpb.KV/Txn",
    KvDeleteRange Unary "/etcdserverpb.KV/DeleteRange",
    KvCompact Unary "/etcdserverpb.KV/Compact",
    KvRangeStream ServerStream "/etcdserverpb.KV/RangeStream",
    WatchWatch BidiStream "/etcdserverpb.Watch/Watch",
    LeaseGrant Unary "/etcdserverpb.Lease/LeaseGrant",
    LeaseRevoke Unary "/etcdserverpb.Lease/LeaseRevoke",
    LeaseKeepAlive BidiStream "/etcdserverpb.Lease/LeaseKeepAlive",
    LeaseTimeToLive Unary "/etcdserverpb.Lease/LeaseTimeToLive",
    LeaseLeases Unary "/etcdserverpb.Lease/LeaseLeases",
    ClusterMemberAdd Unary "/etcdserverpb.Cluster/MemberAdd",
    ClusterMemberRemove Unary "/etcdserverpb.Cluster/MemberRemove",
    ClusterMemberUpdate Unary "/etcdserverpb.Cluster/MemberUpdate",
    ClusterMemberList Unary "/etcdserverpb.Cluster/MemberList",
    ClusterMemberPromote Unary "/etcdserverpb.Cluster/MemberPromote",
    MaintenanceAlarm Unary "/etcdserverpb.Maintenance/Alarm",
    MaintenanceStatus Unary "/etcdserverpb.Maintenance/Status",
    MaintenanceDefragment Unary "/etcdserverpb.Maintenance/Defragment",
    MaintenanceHash Unary "/etcdserverpb.Maintenance/Hash",
    MaintenanceHashKv Unary "/etcdserverpb.Maintenance/HashKV",
    MaintenanceSnapshot ServerStream "/etcdserverpb.Maintenance/Snapshot",
    MaintenanceMoveLeader Unary "/etcdserverpb.Maintenance/MoveLeader",
    MaintenanceDowngrade Unary "/etcdserverpb.Maintenance/Downgrade",
    AuthEnable Unary "/etcdserverpb.Auth/AuthEnable",
    AuthDisable Unary "/etcdserverpb.Auth/AuthDisable",
    AuthStatus Unary "/etcdserverpb.Auth/AuthStatus",
    AuthAuthenticate Unary "/etcdserverpb.Auth/Authenticate",
    AuthUserAdd Unary "/etcdserverpb.Auth/UserAdd",
    AuthUserGet Unary "/etcdserverpb.Auth/UserGet",
    AuthUserList Unary "/etcdserverpb.Auth/UserList",
    AuthUserDelete Unary "/etcdserverpb.Auth/UserDelete",
    AuthUserChangePassword Unary "/etcdserverpb.Auth/UserChangePassword",
    AuthUserGrantRole Unary "/etcdserverpb.Auth/UserGrantRole",
    AuthUserRevokeRole Unary "/etcdserverpb.Auth/UserRevokeRole",
    AuthRoleAdd Unary "/etcdserverpb.Auth/RoleAdd",
    AuthRoleGet Unary "/etcdserverpb.Auth/RoleGet",
    AuthRoleList Unary "/etcdserverpb.Auth/RoleList",
    AuthRoleDelete Unary "/etcdserverpb.Auth/RoleDelete",
    AuthRoleGrantPermission Unary "/etcdserverpb.Auth/RoleGrantPermission",
    AuthRoleRevokePermission Unary "/etcdserverpb.Auth/RoleRevokePermission",
    HealthCheck Unary "/grpc.health.v1.Health/Check",
    HealthList Unary "/grpc.health.v1.Health/List",
    HealthWatch ServerStream "/grpc.health.v1.Health/Watch",
    ReflectionV1 BidiStream "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ReflectionV1Alpha BidiStream "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

impl Method {
    /// Returns the method's number, below [`Method::COUNT`].
    pub fn index(self) -> usize {
        usize::from(self as u8)
    }

    /// Returns the full service name.
    pub fn service(self) -> &'static str {
        split(self.path()).map_or("", |(service, _)| service)
    }

    /// Returns the method name.
    pub fn name(self) -> &'static str {
        split(self.path()).map_or("", |(_, name)| name)
    }

    /// Finds what a path names.
    ///
    /// Source: grpc-go v1.82.1 server.go `handleStream`.
    pub fn find(path: &str) -> Lookup<'_> {
        if let Some(method) = Self::of_path(path) {
            return Lookup::Found(method);
        }
        match split(path) {
            None => Lookup::Malformed,
            Some((service, method)) if Self::ALL.iter().any(|m| m.service() == service) => {
                Lookup::UnknownMethod { service, method }
            }
            Some((service, _)) => Lookup::UnknownService(service),
        }
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.rsplit_once('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for (index, method) in Method::ALL.iter().enumerate() {
            assert_eq!(method.index(), index);
            assert_eq!(Method::find(method.path()), Lookup::Found(*method));
            assert_eq!(
                format!("/{}/{}", method.service(), method.name()),
                method.path()
            );
        }
    }

    #[test]
    fn unknown_paths_say_what_is_unknown() {
        assert_eq!(
            Method::find("/etcdserverpb.KV/Nope"),
            Lookup::UnknownMethod {
                service: "etcdserverpb.KV",
                method: "Nope"
            }
        );
        assert_eq!(Method::find("/a.B/C"), Lookup::UnknownService("a.B"));
        assert_eq!(Method::find("/a/b/C"), Lookup::UnknownService("a/b"));
        for malformed in ["", "/", "/Range", "etcdserverpb.KV/Range"] {
            assert_eq!(Method::find(malformed), Lookup::Malformed, "{malformed}");
        }
    }
}
