//! What the screen shows, and what keys do.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{
    draw::draw,
    heat::heat,
    state::{Action, Sort, State},
};
use crate::model::view::{BucketView, CallView, GraphView, LatencyView, LinkView, StepView};

fn link(from: &str, to: &str, rate: f64, error_percent: f64, p99_us: u64) -> LinkView {
    LinkView {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: "http".to_owned(),
        edges: vec![format!("{from}{to}")],
        rate,
        error_percent,
        latency: Some(LatencyView {
            p99_us,
            ..LatencyView::default()
        }),
        ..LinkView::default()
    }
}

fn state() -> State {
    let mut state = State::default();
    state.update(GraphView {
        edges: vec![
            link("web", "cart", 10.0, 0.0, 5_000),
            link("cart", "redis", 30.0, 0.0, 200),
            link("web", "pay", 1.0, 12.0, 900_000),
        ],
        ..GraphView::default()
    });
    state
}

fn press(state: &mut State, code: KeyCode) -> Action {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_text(state: &mut State, text: &str) {
    for letter in text.chars() {
        press(state, KeyCode::Char(letter));
    }
}

fn screen(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
    terminal.draw(|frame| draw(frame, state)).unwrap();
    terminal.backend().to_string()
}

fn order(state: &State) -> Vec<&str> {
    state.rows().iter().map(|row| row.to.as_str()).collect()
}

#[test]
fn edges_are_sorted_and_filtered() {
    let mut state = state();
    assert_eq!(order(&state), ["redis", "cart", "pay"]);
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(
        (state.sort, order(&state)),
        (Sort::Errors, vec!["pay", "redis", "cart"])
    );
    press(&mut state, KeyCode::Char('s'));
    assert_eq!(order(&state), ["pay", "cart", "redis"]);
    for (filter, wanted) in [
        ("p99>1ms and from=web", vec!["pay", "cart"]),
        ("redi", vec!["redis"]),
    ] {
        press(&mut state, KeyCode::Char('/'));
        type_text(&mut state, filter);
        press(&mut state, KeyCode::Enter);
        assert_eq!(order(&state), wanted, "{filter}");
        assert!(screen(&state).contains(&format!("filter: {filter}")));
        press(&mut state, KeyCode::Esc);
    }
    assert_eq!(order(&state).len(), 3);
}

#[test]
fn the_chosen_edge_stays_chosen_when_others_pass_it() {
    let mut state = state();
    press(&mut state, KeyCode::Down);
    assert_eq!(state.chosen_row(), Some(1));
    state.update(GraphView {
        edges: vec![
            link("web", "cart", 90.0, 0.0, 5_000),
            link("cart", "redis", 30.0, 0.0, 200),
        ],
        ..GraphView::default()
    });
    assert_eq!(state.chosen_row(), Some(0), "still cart");
    press(&mut state, KeyCode::PageDown);
    assert_eq!(state.chosen_row(), Some(1));
}

#[test]
fn an_edge_is_opened_and_a_fault_armed_and_ended_on_it() {
    let mut state = state();
    assert_eq!(
        press(&mut state, KeyCode::Enter),
        Action::Open("cartredis".to_owned())
    );
    let open = state.open.as_mut().unwrap();
    open.steps = vec![step(&[(100.0, 10), (50_000.0, 1)])];
    state.call(CallView {
        edge: "cartredis".to_owned(),
        operation: "GET".to_owned(),
        target: "cart:{id}\u{1b}".to_owned(),
        ..CallView::default()
    });
    state.call(CallView {
        edge: "another".to_owned(),
        target: "not shown".to_owned(),
        ..CallView::default()
    });
    let shown = screen(&state);
    assert!(
        shown.contains("cart -> redis (http): latency over time"),
        "{shown}"
    );
    assert!(
        shown.contains("GET cart:{id}?") && !shown.contains("not shown"),
        "{shown}"
    );

    assert_eq!(press(&mut state, KeyCode::Char('f')), Action::None);
    assert!(screen(&state).contains("delay each answer by: 200ms_"));
    press(&mut state, KeyCode::Backspace);
    press(&mut state, KeyCode::Backspace);
    type_text(&mut state, "0ms");
    let armed = press(&mut state, KeyCode::Enter);
    let id = "cartredis".to_owned();
    let delay = "2000ms".to_owned();
    assert_eq!(
        armed,
        Action::Arm {
            id: id.clone(),
            delay
        }
    );
    state.armed.insert(id.clone(), "top-1".to_owned());
    assert!(screen(&state).contains("a fault is armed"));
    press(&mut state, KeyCode::Char('f'));
    assert!(state.prompt.is_none(), "there is one already");
    assert_eq!(press(&mut state, KeyCode::Char('x')), Action::End { id });
    assert_eq!(press(&mut state, KeyCode::Esc), Action::Close);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Action::Quit);
}

#[test]
fn an_empty_map_can_be_looked_at() {
    let mut state = State::default();
    for code in [
        KeyCode::Down,
        KeyCode::Enter,
        KeyCode::Char('f'),
        KeyCode::Char('x'),
    ] {
        assert_eq!(press(&mut state, code), Action::None);
    }
    assert!(screen(&state).contains("0 edges"));
}

fn step(buckets: &[(f64, u64)]) -> StepView {
    StepView {
        histogram: buckets
            .iter()
            .map(|(from, calls)| BucketView {
                from_us: *from,
                to_us: Some(from * 1.06),
                calls: *calls,
            })
            .collect(),
        ..StepView::default()
    }
}

#[test]
fn slow_calls_are_at_the_top_and_new_ones_to_the_right() {
    let steps = [step(&[(100.0, 100)]), step(&[(100.0, 100), (100_000.0, 1)])];
    let rows = heat(&steps, 10, 6);
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[5].1, "\u{2588}\u{2588}");
    assert_eq!(rows[0].1, " \u{2591}");
    assert!(rows[0].0 > 100_000 && rows[5].0 < 1_000, "{rows:?}");
    assert_eq!(heat(&steps, 1, 6)[5].1, "\u{2588}", "the newest is kept");
    assert!(heat(&[], 10, 6).is_empty());
}
