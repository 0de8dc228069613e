//! Charts as SVG: how latencies are spread, now and in the recording, and over time.

use super::Report;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
/// Room for the scales, to the left and below.
const LEFT: f64 = 60.0;
const BELOW: f64 = 30.0;
/// Points of one series.
const POINTS_LIMIT: usize = 4000;

/// Names and colours of the two series.
const SERIES: [(&str, &str); 2] = [("recorded", "#8a8f98"), ("now", "#0b6bcb")];

/// The share of answers that came within a time.
pub(super) fn spread(report: &Report) -> String {
    let recorded = report.calls.iter().filter_map(|call| call.recorded_latency_ms);
    let now = report.calls.iter().filter_map(|call| call.latency_ms);
    let mut series = [recorded.collect::<Vec<_>>(), now.collect()];
    for times in &mut series {
        times.sort_by(f64::total_cmp);
    }
    let most = series
        .iter()
        .filter_map(|times| times.last())
        .fold(1e-3_f64, |a, b| a.max(*b));
    let mut svg = frame(
        "share of answers",
        "time to the first byte",
        most,
        "ms",
        100.0,
        "%",
    );
    for (times, (_, colour)) in series.iter().zip(SERIES) {
        let count = times.len() as f64;
        let points = (1..)
            .zip(times)
            .map(|(rank, time)| (*time / most, f64::from(rank) / count));
        svg += &line(points.collect(), colour);
    }
    svg + "</svg>\n"
}

/// The time to the first byte of each answer, by when its request was sent.
pub(super) fn over_time(report: &Report) -> String {
    let end = report
        .calls
        .iter()
        .map(|call| call.due_ms)
        .fold(1e-3_f64, f64::max);
    let all = report.calls.iter();
    let most = all
        .flat_map(|call| [call.latency_ms, call.recorded_latency_ms])
        .flatten()
        .fold(1e-3_f64, f64::max);
    let mut svg = frame("time to the first byte", "sent at", end / 1e3, "s", most, "ms");
    for (index, (_, colour)) in SERIES.into_iter().enumerate() {
        let step = report.calls.len().div_ceil(POINTS_LIMIT).max(1);
        for call in report.calls.iter().step_by(step) {
            let latency = if index == 0 {
                call.recorded_latency_ms
            } else {
                call.latency_ms
            };
            if let Some(latency) = latency {
                let (x, y) = place(call.due_ms / end, latency / most);
                svg += &format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\" fill-opacity=\"0.6\"/>\n"
                );
            }
        }
    }
    for call in report.wrong().take(POINTS_LIMIT) {
        let (x, _) = place(call.due_ms / end, 0.0);
        let top = HEIGHT - BELOW;
        svg += &format!("<path d=\"M{x:.1} {top}v8\" stroke=\"#c6372c\" stroke-width=\"2\"/>\n");
    }
    svg + "</svg>\n"
}

fn place(x: f64, y: f64) -> (f64, f64) {
    let right = LEFT + x * (WIDTH - LEFT - 10.0);
    (right, HEIGHT - BELOW - y * (HEIGHT - BELOW - 20.0))
}

fn frame(title: &str, of_x: &str, most_x: f64, unit_x: &str, most_y: f64, unit_y: &str) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" font-size=\"12\" font-family=\"sans-serif\">\n\
         <text x=\"{LEFT}\" y=\"12\" font-weight=\"bold\">{title}</text>\n"
    );
    for (index, (name, colour)) in SERIES.into_iter().enumerate() {
        let x = WIDTH - 180.0 + 90.0 * index as f64;
        svg += &format!("<rect x=\"{x}\" y=\"3\" width=\"10\" height=\"10\" fill=\"{colour}\"/>");
        svg += &format!("<text x=\"{}\" y=\"12\">{name}</text>\n", x + 14.0);
    }
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let ((x, y), (_, floor)) = (place(share, share), place(0.0, 0.0));
        svg += &format!(
            "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}{unit_y}</text>\n",
            WIDTH - 10.0,
            LEFT - 4.0,
            y + 4.0,
            number(share * most_y)
        );
        svg += &format!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}{unit_x}</text>\n",
            floor + 16.0,
            number(share * most_x)
        );
    }
    svg + &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{of_x}</text>\n",
        WIDTH - 10.0,
        HEIGHT - 2.0
    )
}

fn number(value: f64) -> String {
    let digits = if value >= 10.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}

/// A line through points, of which not all are drawn when there are many.
fn line(points: Vec<(f64, f64)>, colour: &str) -> String {
    let step = points.len().div_ceil(POINTS_LIMIT).max(1);
    let last = points.last().copied();
    let drawn = points.into_iter().step_by(step).chain(last);
    let mut path = String::new();
    for (index, (x, y)) in drawn.enumerate() {
        let (x, y) = place(x, y);
        path += &format!("{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n")
}
