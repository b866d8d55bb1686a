//! Active alarms: replicated, persisted, acting on the whole cluster.
use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use quorate_backend::{ApplyTxn, Backend, Table};
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, alarm_request::AlarmAction,
};

use crate::cluster::{RestoreError, rows};

/// The set of active alarms, by member and type.
///
/// Source: etcd v3.7.1 server/etcdserver/api/v3alarm/alarms.go; table `alarm`: key is the serialized alarm, no value.
#[derive(Debug, Default)]
pub struct Alarms {
    active: BTreeSet<(u64, i32)>,
}

impl Alarms {
    /// Restores the alarms that the backend holds.
    ///
    /// # Errors
    /// When the backend cannot be read or a row is not an alarm.
    pub fn restore(backend: &Backend) -> Result<Self, RestoreError> {
        let mut active = BTreeSet::new();
        for (key, _) in rows(&backend.read()?, Table::Alarm)? {
            // An alarm that is passed over would let writes through on this member alone.
            let corrupt = |_| RestoreError::Corrupt("alarm".to_owned());
            let alarm = AlarmMember::decode(key).map_err(corrupt)?;
            active.insert((alarm.member_id, alarm.alarm));
        }
        Ok(Self { active })
    }

    /// Says whether an alarm of the type is active on any member.
    pub fn is_active(&self, alarm: AlarmType) -> bool {
        self.active.iter().any(|(_, a)| *a == alarm as i32)
    }

    /// Returns the active alarms, ordered by member and type; [`AlarmType::None`] asks for all.
    pub fn list(&self, alarm: i32) -> Vec<AlarmMember> {
        let wanted = |a: i32| alarm == AlarmType::None as i32 || a == alarm;
        self.active
            .iter()
            .filter(|(_, a)| wanted(*a))
            .map(|&(member_id, alarm)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// Applies an alarm request and returns the alarms it names.
    ///
    /// Differs from etcd: an unknown action answers an empty list; there the server dereferences a missing answer.
    pub(crate) fn apply(&mut self, txn: &mut ApplyTxn, request: &AlarmRequest) -> Vec<AlarmMember> {
        let alarm = AlarmMember {
            member_id: request.member_id,
            alarm: request.alarm,
        };
        let key = alarm.encode_to_vec();
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.list(request.alarm),
            Ok(AlarmAction::Activate) if request.alarm != AlarmType::None as i32 => {
                if self.active.insert((alarm.member_id, alarm.alarm)) {
                    txn.put(Table::Alarm, &key, Bytes::new());
                }
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) if self.active.remove(&(alarm.member_id, alarm.alarm)) => {
                txn.delete(Table::Alarm, &key);
                vec![alarm]
            }
            _ => Vec::new(),
        }
    }
}
