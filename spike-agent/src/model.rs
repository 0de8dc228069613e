//! Pure data: what an operator may ask for and what the agent answers, parsed once and trusted afterwards.

pub mod capture;
pub mod edge;
pub mod effect;
pub mod exec;
pub mod fault;
pub mod fault_words;
pub mod field_error;
pub mod find;
pub mod human;
pub mod json;
pub mod moment;
pub mod packet_effect;
pub mod packet_rule;
pub mod recording;
pub mod rule;
pub mod selector;
pub mod service;
pub mod service_rule;
pub mod stub;
pub mod tally;
pub mod thresholds;
pub mod units;
pub mod view;

pub use capture::{CaptureSpec, RawCapture};
pub use effect::{Direction, Distribution, Effect, RawEffect, RawStep, Step};
pub use exec::RawExec;
pub use fault::{AbortWhen, Existing, Fault, RawFault, Relay};
pub use field_error::FieldError;
pub use find::Find;
pub use moment::Window;
pub use packet_effect::PacketEffect;
pub use recording::{RawRecording, RecordingSpec};
pub use selector::{
    Called, Caller, Destination, EndSelector, NamePattern, Netns, NetnsName, PortRange, ProcessPattern,
    RawEnd, Selector, User,
};
pub use service::ServiceKind;
pub use service_rule::ServiceRule;
pub use stub::{Lifetime, NoiseRule, OnMiss, RawStub, RuleSide, StubSpec};
pub use tally::Tally;
pub use thresholds::Thresholds;
pub use units::Rate;
pub use view::{CALL_FIELDS, LINK_FIELDS};
