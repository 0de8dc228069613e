//! Keeps the rule maps in step with what was compiled; new rules are in before old ones go.

use std::collections::{HashMap as StdMap, HashSet};

use anyhow::{Context, Result};
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData};
use spike_common::chance::threshold;
use spike_common::config::DATAGRAMS;
use spike_common::rule::{KernelFault, REDIRECT_DATAGRAMS, RuleKey, RuleValue};

use super::Kernel;
use crate::lock::lock;
use crate::model::rule::Compiled;

const DATA: usize = size_of::<RuleKey>() - 4;

/// One pair of rule maps and what is in them.
pub(super) struct RuleTable {
    exact: HashMap<MapData, RuleKey, RuleValue>,
    prefix: LpmTrie<MapData, [u8; DATA], RuleValue>,
    exact_now: StdMap<RuleKey, RuleValue>,
    prefix_now: StdMap<RuleKey, RuleValue>,
}

impl RuleTable {
    pub(super) fn new(
        exact: HashMap<MapData, RuleKey, RuleValue>,
        prefix: LpmTrie<MapData, [u8; DATA], RuleValue>,
    ) -> Self {
        Self {
            exact,
            prefix,
            exact_now: StdMap::new(),
            prefix_now: StdMap::new(),
        }
    }

    fn add(&mut self, wanted: &Compiled) -> Result<()> {
        for (key, value) in &wanted.exact {
            if self.exact_now.get(key) != Some(value) {
                self.exact
                    .insert(key, value, 0)
                    .context("write a rule; at most 262144 fit")?;
                self.exact_now.insert(*key, *value);
            }
        }
        for (key, value) in &wanted.prefix {
            if self.prefix_now.get(key) != Some(value) {
                self.prefix
                    .insert(&lpm_key(key), value, 0)
                    .context("write a prefix rule; at most 262144 fit")?;
                self.prefix_now.insert(*key, *value);
            }
        }
        Ok(())
    }

    fn prune(&mut self, wanted: &Compiled) {
        let (exact, prefix) = (&mut self.exact, &mut self.prefix);
        self.exact_now
            .retain(|key, _| wanted.exact.contains_key(key) || exact.remove(key).is_err());
        self.prefix_now
            .retain(|key, _| wanted.prefix.contains_key(key) || prefix.remove(&lpm_key(key)).is_err());
    }
}

/// The LPM map's form of a key: the prefix length, then the bytes behind it.
fn lpm_key(key: &RuleKey) -> Key<[u8; DATA]> {
    let mut data = [0; DATA];
    data[0..4].copy_from_slice(&key.mask.to_ne_bytes());
    data[4..6].copy_from_slice(&key.port.to_ne_bytes());
    data[8..12].copy_from_slice(&key.tgid.to_ne_bytes());
    data[12..20].copy_from_slice(&key.cgroup.to_ne_bytes());
    data[20..28].copy_from_slice(&key.executable.to_ne_bytes());
    data[28..36].copy_from_slice(&key.name.to_ne_bytes());
    data[36..44].copy_from_slice(&key.netns.to_ne_bytes());
    data[44..48].copy_from_slice(&key.uid.to_ne_bytes());
    data[48..52].copy_from_slice(&key.named.to_ne_bytes());
    data[52..68].copy_from_slice(&key.address.bytes());
    Key::new(key.prefix_len, data)
}

/// A fault for the kernel to decide.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Its number, not 0.
    pub id: u32,
    /// See `Fault`.
    pub seed: u64,
    /// Share of connections hit.
    pub percent: f64,
    /// When it ends (`CLOCK_MONOTONIC`, nanoseconds).
    pub deadline_ns: u64,
}

impl Kernel {
    /// Puts the intercept rules in force.
    ///
    /// # Errors
    /// When a map is full; the rules that were in force stay.
    pub fn set_rules(&self, wanted: &Compiled, refusals: &[Refusal]) -> Result<()> {
        let mut values = wanted.exact.values().chain(wanted.prefix.values());
        let datagrams = values.any(|value| value.flags & REDIRECT_DATAGRAMS != 0);
        let mut faults = lock(&self.faults);
        for refusal in refusals {
            if faults.get(&refusal.id, 0).is_err() {
                let fault = KernelFault {
                    seed: refusal.seed,
                    threshold: threshold(refusal.percent),
                    deadline_ns: refusal.deadline_ns,
                    ..KernelFault::default()
                };
                faults
                    .insert(refusal.id, fault, 0)
                    .context("write a fault for the kernel to decide")?;
            }
        }
        let mut rules = lock(&self.rules);
        rules.add(wanted)?;
        self.configure(|config| {
            config.intercept = wanted.masks;
            if datagrams {
                config.intercept_flags |= DATAGRAMS;
            } else {
                config.intercept_flags &= !DATAGRAMS;
            }
        })?;
        rules.prune(wanted);
        let known: Vec<u32> = faults.keys().flatten().collect();
        let wanted: HashSet<u32> = refusals.iter().map(|refusal| refusal.id).collect();
        for id in known {
            if !wanted.contains(&id) {
                _ = faults.remove(&id);
            }
        }
        Ok(())
    }

    /// Puts the capture rules in force.
    ///
    /// # Errors
    /// When a map is full.
    pub fn set_taps(&self, wanted: &Compiled, snaplen: u32, skips_own: bool) -> Result<()> {
        let mut taps = lock(&self.taps);
        taps.add(wanted)?;
        self.configure(|config| {
            config.tap = wanted.masks;
            config.tap_snaplen = snaplen;
            config.tap_skips_own = u32::from(skips_own);
        })?;
        taps.prune(wanted);
        Ok(())
    }

    /// Connections matched and affected by a fault that the kernel decides.
    pub fn refusal_counts(&self, id: u32) -> Option<(u64, u64)> {
        let fault = lock(&self.faults).get(&id, 0).ok()?;
        Some((fault.matched, fault.affected))
    }
}
