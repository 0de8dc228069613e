//! What `spike top` shows, and what keys do to it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::model::{
    Find, LINK_FIELDS,
    view::{CallView, GraphView, LinkView, StepView},
};

/// Calls of the open edge that are kept.
const CALLS: usize = 200;
/// The delay that is offered.
const DELAY: &str = "200ms";

/// By what the edges are sorted; the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Rate,
    Errors,
    P99,
}

/// What is typed at the bottom of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Filter(String),
    Delay(String),
}

/// The edge that is looked into.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    pub(super) id: String,
    /// Who calls whom, for the title.
    pub(super) title: String,
    pub(super) steps: Vec<StepView>,
    /// The newest first.
    pub(super) calls: VecDeque<CallView>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    graph: GraphView,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) prompt: Option<Prompt>,
    /// Id of the edge that is chosen, so that it stays when others move.
    chosen: Option<String>,
    pub(super) open: Option<Open>,
    /// Names of the faults that were armed here, by edge.
    pub(super) armed: BTreeMap<String, String>,
    pub(super) note: String,
}

/// What a key asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Open(String),
    Close,
    Arm { id: String, delay: String },
    End { id: String },
}

/// Names a row: the first of the edges that it is made of.
pub(super) fn id_of(link: &LinkView) -> &str {
    link.edges.first().map_or("", String::as_str)
}

impl State {
    pub(super) fn update(&mut self, graph: GraphView) {
        self.graph = graph;
    }

    pub(super) fn graph(&self) -> &GraphView {
        &self.graph
    }

    /// The edges that the filter lets through, in order.
    pub(super) fn rows(&self) -> Vec<&LinkView> {
        let condition = Find::parse(&self.filter, LINK_FIELDS).ok();
        let wanted = self.filter.to_lowercase();
        let matches = |link: &&LinkView| match &condition {
            _ if wanted.is_empty() => true,
            Some(condition) => condition.matches(link),
            // Not a condition, or not yet: part of a name.
            None => [&link.from, &link.to, &link.protocol]
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted)),
        };
        let mut rows: Vec<&LinkView> = self.graph.edges.iter().filter(matches).collect();
        let p99 = |link: &LinkView| link.latency.map_or(0, |latency| latency.p99_us);
        rows.sort_by(|a, b| {
            let order = match self.sort {
                Sort::Rate => b.rate.total_cmp(&a.rate),
                Sort::Errors => b.error_percent.total_cmp(&a.error_percent),
                Sort::P99 => p99(b).cmp(&p99(a)),
            };
            match order {
                Ordering::Equal => (&a.from, &a.to, &a.protocol).cmp(&(&b.from, &b.to, &b.protocol)),
                order => order,
            }
        });
        rows
    }

    /// Which row is chosen.
    pub(super) fn chosen_row(&self) -> Option<usize> {
        let rows = self.rows();
        let chosen = self.chosen.as_deref();
        let found = rows.iter().position(|row| Some(id_of(row)) == chosen);
        found.or((!rows.is_empty()).then_some(0))
    }

    /// Takes in a call of the open edge.
    pub(super) fn call(&mut self, call: CallView) {
        if let Some(open) = &mut self.open
            && open.id == call.edge
        {
            open.calls.push_front(call);
            open.calls.truncate(CALLS);
        }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if let Some(prompt) = self.prompt.take() {
            return self.typed(prompt, key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc | KeyCode::Backspace if self.open.take().is_some() => return Action::Close,
            KeyCode::Char('f') => {
                let is_armed = self.here().is_some_and(|id| self.armed.contains_key(&id));
                if is_armed {
                    "there is a fault on this edge; x ends it".clone_into(&mut self.note);
                } else if self.here().is_some() {
                    self.prompt = Some(Prompt::Delay(DELAY.to_owned()));
                }
            }
            KeyCode::Char('x') => {
                if let Some(id) = self.here() {
                    return Action::End { id };
                }
            }
            _ if self.open.is_some() => {}
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.prompt = Some(Prompt::Filter(self.filter.clone())),
            KeyCode::Char('s') => {
                self.sort = match self.sort {
                    Sort::Rate => Sort::Errors,
                    Sort::Errors => Sort::P99,
                    Sort::P99 => Sort::Rate,
                };
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(20),
            KeyCode::PageUp => self.step(-20),
            KeyCode::Enter => {
                let row = self
                    .chosen_row()
                    .and_then(|row| self.rows().get(row).copied().cloned());
                if let Some(link) = row {
                    let id = id_of(&link).to_owned();
                    self.open = Some(Open {
                        title: format!("{} -> {} ({})", link.from, link.to, link.protocol),
                        id: id.clone(),
                        ..Open::default()
                    });
                    return Action::Open(id);
                }
            }
            _ => {}
        }
        Action::None
    }

    /// The edge that keys speak of: the open one, else the chosen one.
    fn here(&self) -> Option<String> {
        if let Some(open) = &self.open {
            return Some(open.id.clone());
        }
        let rows = self.rows();
        Some(id_of(rows.get(self.chosen_row()?)?).to_owned())
    }

    fn step(&mut self, by: isize) {
        let rows = self.rows();
        let Some(row) = self.chosen_row() else { return };
        let row = row.saturating_add_signed(by).min(rows.len() - 1);
        self.chosen = Some(id_of(rows[row]).to_owned());
    }

    fn typed(&mut self, prompt: Prompt, code: KeyCode) -> Action {
        let (mut text, again): (String, fn(String) -> Prompt) = match prompt {
            Prompt::Filter(text) => (text, Prompt::Filter),
            Prompt::Delay(text) => (text, Prompt::Delay),
        };
        match code {
            KeyCode::Esc => return Action::None,
            KeyCode::Enter => {
                return match again(text) {
                    Prompt::Filter(text) => {
                        self.filter = text;
                        Action::None
                    }
                    Prompt::Delay(delay) => match self.here() {
                        Some(id) => Action::Arm { id, delay },
                        None => Action::None,
                    },
                };
            }
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(letter) => text.push(letter),
            _ => {}
        }
        self.prompt = Some(again(text));
        Action::None
    }
}
