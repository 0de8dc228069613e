//! What each API is called, and what is read of it.

use super::{Fields, Head, Request};
use crate::protocol::fold;

pub(super) const PRODUCE: u16 = 0;
const FETCH: u16 = 1;
/// The first version that has numbers for topics, and not names.
const PRODUCE_BY_NUMBER: u16 = 13;
const FETCH_BY_NUMBER: u16 = 13;

/// By their number.
pub(super) const NAMES: [&str; 93] = [
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "LeaderAndIsr",
    "StopReplica",
    "UpdateMetadata",
    "ControlledShutdown",
    "OffsetCommit",
    "OffsetFetch",
    "FindCoordinator",
    "JoinGroup",
    "Heartbeat",
    "LeaveGroup",
    "SyncGroup",
    "DescribeGroups",
    "ListGroups",
    "SaslHandshake",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "DeleteRecords",
    "InitProducerId",
    "OffsetForLeaderEpoch",
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "EndTxn",
    "WriteTxnMarkers",
    "TxnOffsetCommit",
    "DescribeAcls",
    "CreateAcls",
    "DeleteAcls",
    "DescribeConfigs",
    "AlterConfigs",
    "AlterReplicaLogDirs",
    "DescribeLogDirs",
    "SaslAuthenticate",
    "CreatePartitions",
    "CreateDelegationToken",
    "RenewDelegationToken",
    "ExpireDelegationToken",
    "DescribeDelegationToken",
    "DeleteGroups",
    "ElectLeaders",
    "IncrementalAlterConfigs",
    "AlterPartitionReassignments",
    "ListPartitionReassignments",
    "OffsetDelete",
    "DescribeClientQuotas",
    "AlterClientQuotas",
    "DescribeUserScramCredentials",
    "AlterUserScramCredentials",
    "Vote",
    "BeginQuorumEpoch",
    "EndQuorumEpoch",
    "DescribeQuorum",
    "AlterPartition",
    "UpdateFeatures",
    "Envelope",
    "FetchSnapshot",
    "DescribeCluster",
    "DescribeProducers",
    "BrokerRegistration",
    "BrokerHeartbeat",
    "UnregisterBroker",
    "DescribeTransactions",
    "ListTransactions",
    "AllocateProducerIds",
    "ConsumerGroupHeartbeat",
    "ConsumerGroupDescribe",
    "ControllerRegistration",
    "GetTelemetrySubscriptions",
    "PushTelemetry",
    "AssignReplicasToDirs",
    "ListConfigResources",
    "DescribeTopicPartitions",
    "ShareGroupHeartbeat",
    "ShareGroupDescribe",
    "ShareFetch",
    "ShareAcknowledge",
    "AddRaftVoter",
    "RemoveRaftVoter",
    "UpdateRaftVoter",
    "InitializeShareGroupState",
    "ReadShareGroupState",
    "WriteShareGroupState",
    "DeleteShareGroupState",
    "ReadShareGroupStateSummary",
    "StreamsGroupHeartbeat",
    "StreamsGroupDescribe",
    "DescribeShareGroupOffsets",
    "AlterShareGroupOffsets",
    "DeleteShareGroupOffsets",
];

/// A request's name and first topic, and whether it is answered.
pub(super) fn request(head: &Head<'_>) -> Option<(Request, bool)> {
    let name = *NAMES.get(usize::from(head.api))?;
    let mut rest = head.rest;
    let (topic, answered) = match head.api {
        PRODUCE => {
            let (acks, topic) = produce(head.version, &mut rest)?;
            (topic, acks != 0)
        }
        FETCH => (fetch(head.version, &mut rest), true),
        _ => (None, true),
    };
    let topic = topic.map_or_else(String::new, |topic| fold::key(&String::from_utf8_lossy(topic)));
    Some((Request::new(name, topic), answered))
}

/// The acknowledgements that are wanted, and the first topic.
fn produce<'a>(version: u16, rest: &mut Fields<'a>) -> Option<(u16, Option<&'a [u8]>)> {
    let flexible = version >= 9;
    rest.tagged(flexible)?;
    if version >= 3 {
        // A transaction.
        rest.string(flexible)?;
    }
    let acks = rest.short()?;
    let mut topic = || {
        rest.skip(4)?;
        let count = rest.count(flexible)?;
        (count > 0 && version < PRODUCE_BY_NUMBER).then(|| rest.string(flexible))?
    };
    Some((acks, topic()))
}

/// Whether a request carries records, as far as its start tells; none if it is too short to tell or of another kind.
pub(super) fn is_produce(head: &Head<'_>) -> Option<bool> {
    if head.api != PRODUCE {
        return None;
    }
    let mut rest = head.rest;
    let (acks, topic) = produce(head.version, &mut rest)?;
    // All replicas, none, or the leader.
    let known = matches!(acks, u16::MAX | 0 | 1);
    Some(known && topic.is_none_or(|topic| topic.iter().all(u8::is_ascii_graphic)))
}

fn fetch<'a>(version: u16, rest: &mut Fields<'a>) -> Option<&'a [u8]> {
    let flexible = version >= 12;
    rest.tagged(flexible)?;
    rest.skip(match version {
        0..=2 => 12,
        3 => 16,
        4..=6 => 17,
        7..FETCH_BY_NUMBER => 25,
        _ => return None,
    })?;
    // An incremental one names what has changed.
    let count = rest.count(flexible)?;
    (count > 0).then(|| rest.string(flexible))?
}

/// The error in an answer, of its first partition where there are some; none where it isn't near the start.
pub(super) fn error(api: u16, version: u16, mut rest: Fields<'_>) -> Option<u16> {
    // The first version with tagged fields, and the first with the time that a client is throttled.
    let (flexible, throttled) = match api {
        PRODUCE => {
            rest.tagged(version >= 9)?;
            return partition(version >= 9, version >= PRODUCE_BY_NUMBER, rest);
        }
        FETCH => {
            rest.tagged(version >= 12)?;
            if version >= 1 {
                rest.skip(4)?;
            }
            if version >= 7 {
                let code = rest.short()?;
                if code != 0 {
                    return Some(code);
                }
                rest.skip(4)?;
            }
            // Nothing new is no error.
            return Some(partition(version >= 12, version >= FETCH_BY_NUMBER, rest).unwrap_or(0));
        }
        10 if version < 4 => (3, 1),
        11 => (6, 2),
        12 => (4, 1),
        13 => (4, 1),
        14 => (4, 1),
        16 => (3, 1),
        // Its answer is read before a client knows what the server can.
        17 | 18 => (u16::MAX, u16::MAX),
        22 => (2, 0),
        25 => (3, 0),
        26 => (3, 0),
        36 => (2, u16::MAX),
        68 => (0, 0),
        _ => return None,
    };
    rest.tagged(version >= flexible)?;
    if version >= throttled {
        rest.skip(4)?;
    }
    rest.short()
}

/// The error of the first partition of the first topic.
fn partition(flexible: bool, by_number: bool, mut rest: Fields<'_>) -> Option<u16> {
    if rest.count(flexible)? == 0 {
        return None;
    }
    if by_number {
        rest.skip(16)?;
    } else {
        rest.string(flexible)?;
    }
    if rest.count(flexible)? == 0 {
        return None;
    }
    rest.skip(4)?;
    rest.short()
}

/// Errors that are a part of how things go: a member's first name, a new division, another version, another session.
pub(super) fn is_failure(code: u16) -> bool {
    !matches!(code, 0 | 27 | 35 | 70 | 71 | 79)
}

pub(super) fn error_name(code: u16) -> String {
    let known = match code {
        0 => "OK",
        1 => "OFFSET_OUT_OF_RANGE",
        2 => "CORRUPT_MESSAGE",
        3 => "UNKNOWN_TOPIC_OR_PARTITION",
        5 => "LEADER_NOT_AVAILABLE",
        6 => "NOT_LEADER_OR_FOLLOWER",
        7 => "REQUEST_TIMED_OUT",
        8 => "BROKER_NOT_AVAILABLE",
        9 => "REPLICA_NOT_AVAILABLE",
        10 => "MESSAGE_TOO_LARGE",
        14 => "COORDINATOR_LOAD_IN_PROGRESS",
        15 => "COORDINATOR_NOT_AVAILABLE",
        16 => "NOT_COORDINATOR",
        17 => "INVALID_TOPIC_EXCEPTION",
        18 => "RECORD_LIST_TOO_LARGE",
        19 => "NOT_ENOUGH_REPLICAS",
        20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        21 => "INVALID_REQUIRED_ACKS",
        22 => "ILLEGAL_GENERATION",
        23 => "INCONSISTENT_GROUP_PROTOCOL",
        24 => "INVALID_GROUP_ID",
        25 => "UNKNOWN_MEMBER_ID",
        26 => "INVALID_SESSION_TIMEOUT",
        27 => "REBALANCE_IN_PROGRESS",
        29 => "TOPIC_AUTHORIZATION_FAILED",
        30 => "GROUP_AUTHORIZATION_FAILED",
        31 => "CLUSTER_AUTHORIZATION_FAILED",
        33 => "UNSUPPORTED_SASL_MECHANISM",
        34 => "ILLEGAL_SASL_STATE",
        35 => "UNSUPPORTED_VERSION",
        42 => "INVALID_REQUEST",
        45 => "OUT_OF_ORDER_SEQUENCE_NUMBER",
        46 => "DUPLICATE_SEQUENCE_NUMBER",
        47 => "INVALID_PRODUCER_EPOCH",
        51 => "CONCURRENT_TRANSACTIONS",
        53 => "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        56 => "KAFKA_STORAGE_ERROR",
        58 => "SASL_AUTHENTICATION_FAILED",
        59 => "UNKNOWN_PRODUCER_ID",
        70 => "FETCH_SESSION_ID_NOT_FOUND",
        71 => "INVALID_FETCH_SESSION_EPOCH",
        74 => "FENCED_LEADER_EPOCH",
        75 => "UNKNOWN_LEADER_EPOCH",
        76 => "UNSUPPORTED_COMPRESSION_TYPE",
        79 => "MEMBER_ID_REQUIRED",
        82 => "FENCED_INSTANCE_ID",
        89 => "THROTTLING_QUOTA_EXCEEDED",
        90 => "PRODUCER_FENCED",
        100 => "UNKNOWN_TOPIC_ID",
        u16::MAX => "UNKNOWN_SERVER_ERROR",
        code => return code.to_string(),
    };
    known.to_owned()
}
