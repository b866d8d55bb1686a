//! Flags of TLS, of who may connect, and of users.

use super::{Effect, Flag, Kind, Yaml, flag};
use crate::config::effect;

const NO_TLS: &str = "it concerns TLS alone, which is not built yet";

#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = &[
    flag("cert-file", Kind::Text, "", Effect::NotBuilt,
        "File of the certificate shown to clients.").yaml(Yaml::At("client-transport-security.cert-file")),
    flag("key-file", Kind::Text, "", Effect::NotBuilt,
        "File of its key.").yaml(Yaml::At("client-transport-security.key-file")),
    flag("client-cert-auth", Kind::Bool, "false", Effect::NotBuilt,
        "Demands certificates of clients; their common name is the user.").yaml(Yaml::At("client-transport-security.client-cert-auth")),
    flag("client-cert-file", Kind::Text, "", Effect::NotBuilt,
        "File of the certificate used when this process is a client of itself.").yaml(Yaml::At("client-transport-security.client-cert-file")),
    flag("client-key-file", Kind::Text, "", Effect::NotBuilt,
        "File of its key.").yaml(Yaml::At("client-transport-security.client-key-file")),
    flag("client-crl-file", Kind::Text, "", Effect::NotBuilt,
        "File of the revoked client certificates.").yaml(Yaml::Absent),
    flag("client-cert-allowed-hostname", Kind::List, "", Effect::NotBuilt,
        "Host names, one of which a client certificate must carry.").yaml(Yaml::At("client-transport-security.allowed-hostname")),
    flag("trusted-ca-file", Kind::Text, "", Effect::NotBuilt,
        "File of the authorities whose client certificates are trusted.").yaml(Yaml::At("client-transport-security.trusted-ca-file")),
    flag("auto-tls", Kind::Bool, "false", Effect::NotBuilt,
        "Makes a certificate for clients by itself.").yaml(Yaml::At("client-transport-security.auto-tls")),
    flag("peer-cert-file", Kind::Text, "", Effect::NotBuilt,
        "File of the certificate shown to other members.").yaml(Yaml::At("peer-transport-security.cert-file")),
    flag("peer-key-file", Kind::Text, "", Effect::NotBuilt,
        "File of its key.").yaml(Yaml::At("peer-transport-security.key-file")),
    flag("peer-client-cert-auth", Kind::Bool, "false", Effect::NotBuilt,
        "Demands certificates of other members.").yaml(Yaml::At("peer-transport-security.client-cert-auth")),
    flag("peer-client-cert-file", Kind::Text, "", Effect::NotBuilt,
        "File of the certificate used towards other members.").yaml(Yaml::At("peer-transport-security.client-cert-file")),
    flag("peer-client-key-file", Kind::Text, "", Effect::NotBuilt,
        "File of its key.").yaml(Yaml::At("peer-transport-security.client-key-file")),
    flag("peer-trusted-ca-file", Kind::Text, "", Effect::NotBuilt,
        "File of the authorities whose member certificates are trusted.").yaml(Yaml::At("peer-transport-security.trusted-ca-file")),
    flag("peer-cert-allowed-cn", Kind::List, "", Effect::NotBuilt,
        "Common names, one of which a member certificate must carry.").yaml(Yaml::At("peer-transport-security.allowed-cn")),
    flag("peer-cert-allowed-hostname", Kind::List, "", Effect::NotBuilt,
        "Host names, one of which a member certificate must carry.").yaml(Yaml::At("peer-transport-security.allowed-hostname")),
    flag("peer-auto-tls", Kind::Bool, "false", Effect::NotBuilt,
        "Makes a certificate for members by itself.").yaml(Yaml::At("peer-transport-security.auto-tls")),
    flag("peer-crl-file", Kind::Text, "", Effect::NotBuilt,
        "File of the revoked member certificates.").yaml(Yaml::Absent),
    flag("peer-skip-client-san-verification", Kind::Bool, "false", Effect::NotBuilt,
        "Does not match a member's certificate with its address.").yaml(Yaml::At("peer-transport-security.skip-client-san-verification")),
    flag("self-signed-cert-validity", Kind::Uint, "1", Effect::Accepted(NO_TLS),
        "Years for which certificates made by itself are valid."),
    flag("cipher-suites", Kind::List, "", Effect::Accepted(NO_TLS),
        "Cipher suites of TLS 1.2 by their names."),
    flag("tls-min-version", Kind::Text, "TLS1.2", Effect::Accepted(NO_TLS),
        "Oldest version of TLS: TLS1.2 or TLS1.3."),
    flag("tls-max-version", Kind::Text, "", Effect::Accepted(NO_TLS),
        "Newest version of TLS: TLS1.2 or TLS1.3; empty means the newest known."),
    flag("cors", Kind::Origins, "*", Effect::BuiltFor(effect::allows_all, "*"),
        "Origins whose web pages may call; * means all.").yaml(Yaml::CommaString),
    flag("host-whitelist", Kind::Set, "*", Effect::BuiltFor(effect::allows_all, "*"),
        "Host names that plain HTTP requests may carry; * means all.").yaml(Yaml::CommaString),
];

#[rustfmt::skip]
pub(super) const AUTH: &[Flag] = &[
    flag("auth-token", Kind::Text, "simple", Effect::BuiltFor(effect::token_is_not_jwt, "simple, or empty for none"),
        "Kind of the tokens given to users, with its options."),
    flag("bcrypt-cost", Kind::Uint, "10", Effect::Built,
        "Cost of hashing a password, from 4 to 31."),
    flag("auth-token-ttl", Kind::Uint, "300", Effect::Built,
        "Seconds for which a token that is not used stays valid."),
];
