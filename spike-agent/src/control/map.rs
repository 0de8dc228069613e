//! The verbs of the service map: the graph of a stretch of time, drawn, compared and judged.

use std::time::{Duration, SystemTime};

use super::{Control, ControlError};
use crate::{
    model::{
        FieldError, Find, LINK_FIELDS, Window,
        moment::moment,
        view::{AnalysisView, DiffView, EdgeHistoryView, GraphView, Group, LinkView, MapView, StepView},
    },
    topology::{AnalysisInput, DrawFormat, Graph, Observed, analyze, diff, link_of_flow, render},
};

/// What is looked at by an analysis, and on each side of a comparison, unless said.
const WINDOW: &str = "5m";
/// The same of an edge's steps.
const EDGE_WINDOW: &str = "10m";

/// Which part of the map is wanted, and of when.
#[derive(Clone, Debug, Default)]
pub struct MapQuery {
    /// When it ends.
    pub at: Option<String>,
    /// How long it is.
    pub since: Option<String>,
    /// Only edges of which this condition is true.
    pub find: Option<String>,
    /// No edges of which this condition is true.
    pub hide: Option<String>,
}

/// Which edges are wanted.
struct Wanted {
    find: Option<Find<LinkView>>,
    hide: Option<Find<LinkView>>,
}

impl Wanted {
    fn parse(query: &MapQuery) -> Result<Self, FieldError> {
        let parse = |field: &str, text: &Option<String>| {
            let found = text.as_deref().map(|text| Find::parse(text, LINK_FIELDS));
            found.transpose().map_err(|error| FieldError::new(field, error))
        };
        Ok(Self {
            find: parse("find", &query.find)?,
            hide: parse("hide", &query.hide)?,
        })
    }

    fn keeps(&self, link: &LinkView) -> bool {
        self.find.as_ref().is_none_or(|find| find.matches(link))
            && !self.hide.as_ref().is_some_and(|hide| hide.matches(link))
    }

    fn is_all(&self) -> bool {
        self.find.is_none() && self.hide.is_none()
    }
}

impl Control {
    /// The edges of a stretch of time; without one since the agent's start.
    pub fn map(&self, query: &MapQuery) -> Result<MapView, ControlError> {
        let wanted = Wanted::parse(query)?;
        let window = Window::parse(query.at.as_deref(), query.since.as_deref(), SystemTime::now())?;
        if window == Window::SinceStart && wanted.is_all() {
            return self.service_map();
        }
        let mut observed = self.observed(window, false)?;
        let seconds = observed.seconds();
        observed
            .flows
            .retain(|flow| wanted.keeps(&link_of_flow(flow, seconds)));
        let mut edges: Vec<_> = observed.flows.into_iter().map(|flow| flow.view).collect();
        edges.sort_by_key(|edge| std::cmp::Reverse(edge.calls));
        Ok(MapView {
            at: humantime::format_rfc3339_millis(observed.to).to_string(),
            edges,
            losses: observed.losses,
        })
    }

    /// The map as a graph.
    pub fn graph(&self, query: &MapQuery, group: Group) -> Result<GraphView, ControlError> {
        let wanted = Wanted::parse(query)?;
        let window = Window::parse(query.at.as_deref(), query.since.as_deref(), SystemTime::now())?;
        let observed = self.observed(window, false)?;
        let graph = Graph::new(&observed, group, &self.planes.host());
        Ok(graph.view(&observed, group, |link| wanted.keeps(link)))
    }

    /// The map, drawn.
    pub fn drawing(
        &self,
        query: &MapQuery,
        group: Group,
        format: DrawFormat,
    ) -> Result<String, ControlError> {
        let graph = self.graph(query, group)?;
        render(&graph, format).map_err(|error| FieldError::new("format", error).into())
    }

    /// What is wrong with the architecture; with `without`, what would be without that service.
    pub fn analysis(
        &self,
        at: Option<&str>,
        since: Option<&str>,
        without: Option<&str>,
    ) -> Result<AnalysisView, ControlError> {
        let now = SystemTime::now();
        let window = match Window::parse(at, since.or(Some(WINDOW)), now)? {
            // Without a history there is still all that was seen since the start.
            window if at.is_none() && since.is_none() && !self.has_history(window) => Window::SinceStart,
            window => window,
        };
        let observed = self.observed(window, false)?;
        let (recent, facts) = self.planes.recent(window);
        let thresholds = self.planes.thresholds();
        let input = AnalysisInput {
            observed: &observed,
            recent: &recent,
            facts: &facts,
            thresholds: &thresholds,
            now,
        };
        analyze(&input, without).map_err(|error| FieldError::new("without", error).into())
    }

    /// What is different on the map at `after`, of what it was at `before`; each is a stretch of time that ends then.
    pub fn map_diff(
        &self,
        before: &str,
        after: &str,
        length: Option<&str>,
        group: Group,
    ) -> Result<DiffView, ControlError> {
        let now = SystemTime::now();
        let side = |field: &str, text: &str| {
            moment(text, now).map_err(|error| FieldError::new(field, error))?;
            let window = Window::parse(Some(text), length.or(Some(WINDOW)), now)?;
            self.observed(window, true)
        };
        let (before, after) = (side("before", before)?, side("after", after)?);
        Ok(diff(&before, &after, group, &self.planes.host()))
    }

    /// The steps of one edge.
    pub fn edge_history(&self, id: &str, since: Option<&str>) -> Result<EdgeHistoryView, ControlError> {
        let number = u64::from_str_radix(id, 16).map_err(|_| ControlError::no_such("edge", id))?;
        let window = Window::parse(None, since.or(Some(EDGE_WINDOW)), SystemTime::now())?;
        let steps = self.planes.edge_steps(number, window);
        let steps = steps.map_err(ControlError::from_planes("read the history"))?;
        let view = |step: &crate::topology::Step| {
            let (_, counts) = step.edges.iter().find(|(edge, _)| *edge == number)?;
            let from = u64::try_from(step.from_ms).unwrap_or(0);
            let from = SystemTime::UNIX_EPOCH + Duration::from_millis(from);
            Some(StepView {
                from: humantime::format_rfc3339_millis(from).to_string(),
                seconds: (step.to_ms - step.from_ms) as f64 / 1000.0,
                calls: counts.calls,
                error_percent: (counts.error_share().unwrap_or(0.0) * 10_000.0).round() / 100.0,
                histogram: counts.latency.buckets(),
            })
        };
        Ok(EdgeHistoryView {
            id: id.to_owned(),
            steps: steps.iter().filter_map(view).collect(),
        })
    }

    fn observed(&self, window: Window, steps: bool) -> Result<Observed, ControlError> {
        let observed = self.planes.observed(window, steps);
        observed.map_err(ControlError::from_planes("read the map"))
    }

    fn has_history(&self, window: Window) -> bool {
        self.planes.edge_steps(0, window).is_ok()
    }
}
