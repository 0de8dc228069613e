//! Draws the screen of `spike top`.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Table, TableState},
};

use super::{
    heat::heat,
    state::{Open, Prompt, Sort, State, id_of},
};
use crate::{
    cli::human::{micros, percent, rate},
    model::view::LinkView,
};

const KEYS: &str = "\u{2191}\u{2193} choose  Enter open  s sort  / filter  f delay  x end fault  q quit";
const KEYS_OPEN: &str = "Esc back  f delay  x end fault  q quit";

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(heading(state), head);
    match &state.open {
        Some(open) => detail(frame, body, open, state.armed.contains_key(&open.id)),
        None => list(frame, body, state),
    }
    frame.render_widget(footer(state), foot);
}

fn heading(state: &State) -> Line<'static> {
    let graph = state.graph();
    let total: f64 = graph.edges.iter().map(|edge| edge.rate).sum();
    let sort = match state.sort {
        Sort::Rate => "rate",
        Sort::Errors => "errors",
        Sort::P99 => "p99",
    };
    let mut text = format!(
        "spike top  {}  {} edges, {}  by {sort}",
        graph.to.get(11..19).unwrap_or_default(),
        graph.edges.len(),
        rate(total)
    );
    if !state.filter.is_empty() {
        text += &format!("  filter: {}", clean(&state.filter));
    }
    if !state.armed.is_empty() {
        text += &format!("  {} fault(s) armed here", state.armed.len());
    }
    Line::from(text).bold()
}

fn footer(state: &State) -> Line<'static> {
    match &state.prompt {
        Some(Prompt::Filter(text)) => {
            Line::from(format!("filter (part of a name, or p99>100ms): {}_", clean(text)))
        }
        Some(Prompt::Delay(text)) => Line::from(format!(
            "delay each answer by: {}_   (Enter arms, Esc does not)",
            clean(text)
        )),
        None if !state.note.is_empty() => Line::from(clean(&state.note)).yellow(),
        None if state.open.is_some() => Line::from(KEYS_OPEN).dim(),
        None => Line::from(KEYS).dim(),
    }
}

fn list(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let rows = state.rows();
    let header = Row::new([
        "FROM", "TO", "PROTO", "RATE", "ERR", "p50", "p99", "OPEN", "FAULT",
    ])
    .style(Style::new().add_modifier(Modifier::BOLD));
    let table = Table::new(
        rows.iter().map(|link| row(link, state)),
        [
            Constraint::Fill(3),
            Constraint::Fill(3),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(7),
            Constraint::Length(5),
            Constraint::Length(6),
        ],
    )
    .header(header)
    .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
    .highlight_symbol("> ");
    let mut chosen = TableState::default().with_selected(state.chosen_row());
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn row(link: &LinkView, state: &State) -> Row<'static> {
    let time = |pick: fn(&crate::model::view::LatencyView) -> u64| {
        link.latency
            .as_ref()
            .map_or_else(|| "-".to_owned(), |latency| micros(pick(latency)))
    };
    let style = if link.error_percent >= 1.0 {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    Row::new([
        clean(&link.from),
        clean(&link.to),
        clean(&link.protocol),
        rate(link.rate),
        percent(link.error_percent),
        time(|latency| latency.p50_us),
        time(|latency| latency.p99_us),
        link.open.to_string(),
        if state.armed.contains_key(id_of(link)) {
            "armed".to_owned()
        } else {
            String::new()
        },
    ])
    .style(style)
}

fn detail(frame: &mut Frame<'_>, area: Rect, open: &Open, is_armed: bool) {
    let [top, bottom] =
        Layout::vertical([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(area);
    let fault = if is_armed { "  a fault is armed" } else { "" };
    let block = Block::bordered().title(format!(" {}: latency over time{fault} ", clean(&open.title)));
    let inner = block.inner(top);
    let scale = 9;
    let width = usize::from(inner.width).saturating_sub(scale);
    let lines: Vec<Line<'_>> = heat(&open.steps, width, usize::from(inner.height))
        .into_iter()
        .map(|(upper, field)| {
            Line::from(vec![
                Span::from(format!("{:>7} \u{2502}", micros(upper))).dim(),
                Span::from(field).fg(Color::Cyan),
            ])
        })
        .collect();
    let field = if lines.is_empty() {
        Paragraph::new("no call in the last 10 minutes")
    } else {
        Paragraph::new(lines)
    };
    frame.render_widget(field.block(block), top);

    let lines: Vec<Line<'_>> = open
        .calls
        .iter()
        .take(usize::from(bottom.height))
        .map(|call| {
            let text = format!(
                "{} {} {} {} {}",
                call.at.get(11..23).unwrap_or(&call.at),
                micros(call.total_us),
                call.status.as_deref().unwrap_or("-"),
                call.operation,
                call.target
            );
            let line = Line::from(clean(&text));
            if call.failed { line.red() } else { line }
        })
        .collect();
    let calls = if lines.is_empty() {
        Paragraph::new("waiting for a call that is decoded")
    } else {
        Paragraph::new(lines)
    };
    frame.render_widget(calls.block(Block::bordered().title(" last calls ")), bottom);
}

/// What comes from the network has no control over the terminal.
fn clean(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), "?")
}
