//! Line charts as inline SVG, drawn here: a report is one file and loads nothing.
//!
//! G1  A hole in the data is a hole in the line.
//! G2  Every text that goes in is escaped.

use std::fmt::Write;

/// Size of the drawing; the page scales it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
/// Room for labels: left, right, top, bottom.
const MARGIN: [f64; 4] = [66.0, 16.0, 10.0, 42.0];
/// Points of one line; of more, the largest of each stretch is drawn, so that no peak disappears.
const POINTS_MAX: usize = 600;
/// Lines of one chart.
const LINES_MAX: usize = 16;

/// Colours that stay apart on light and dark ground, and for most colour-blind readers.
pub const COLOURS: [&str; 8] = ["#3b82c4", "#e0882f", "#3a9d5d", "#c4508f", "#8c6bd1", "#b0a13a", "#4db6b6", "#d65a4f"];

/// One line of a chart.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Number of its colour.
    pub colour: usize,
    /// Drawn in dashes.
    pub dashed: bool,
    /// Points from left to right; `None` is a hole.
    pub points: Vec<(f64, Option<f64>)>,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0, evenly.
    Even,
    /// By powers of ten.
    Log,
    /// Shares of 1, each nine as wide as the one before: 90 %, 99 %, 99.9 %.
    Nines,
}

/// A chart.
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: (&'static str, Scale),
    /// Beside it.
    pub y: (String, Scale),
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// Text that is safe inside markup (G2).
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Where a value lies on its axis, before it is stretched to the drawing.
fn place(value: f64, scale: Scale) -> f64 {
    match scale {
        Scale::Even => value,
        Scale::Log => value.max(1e-6).log10(),
        Scale::Nines => -(1.0 - value).max(1e-6).log10(),
    }
}

/// Ends of an axis over all values.
fn ends(values: impl Iterator<Item = f64>, scale: Scale) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(place(value, scale)), high.max(place(value, scale))));
    match scale {
        _ if low > high => (0.0, 1.0),
        Scale::Even => (low.min(0.0), if high > 0.0 { high * 1.05 } else { 1.0 }),
        Scale::Log => (low.floor(), high.ceil().max(low.floor() + 1.0)),
        Scale::Nines => (0.0, high.max(1.0)),
    }
}

/// Values at which an axis is labelled.
fn ticks((low, high): (f64, f64), scale: Scale) -> Vec<(f64, String)> {
    match scale {
        Scale::Even => {
            let raw = (high - low) / 5.0;
            let power = 10_f64.powf(raw.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= raw).unwrap_or(raw);
            let from = (low / step).ceil() as i64;
            (from..=from + 12).map(|n| n as f64 * step).filter(|at| *at <= high).map(|at| (at, label(at))).collect()
        }
        Scale::Log => (low as i32..=high as i32).map(|n| (f64::from(n), label(10_f64.powi(n)))).collect(),
        Scale::Nines => {
            let nines = ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "max"];
            let shown = nines.iter().enumerate().map(|(n, name)| (n as f64, (*name).to_owned()));
            shown.filter(|(at, _)| *at <= high + 1e-9).collect()
        }
    }
}

/// A number on an axis.
fn label(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{} M", short(value / 1e6)),
        size if size >= 1e4 => format!("{} k", short(value / 1e3)),
        _ => short(value),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Fewer points, with the largest of each stretch.
fn thinned(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    let stretch = points.len().div_ceil(POINTS_MAX).max(1);
    let peak = |part: &[(f64, Option<f64>)]| {
        part.iter()
            .copied()
            .filter(|point| point.1.is_some())
            .max_by(|a, b| a.1.unwrap_or(0.0).total_cmp(&b.1.unwrap_or(0.0)))
    };
    points.chunks(stretch).map(|part| peak(part).unwrap_or((part[0].0, None))).collect()
}

impl Chart {
    /// The chart with title and legend; nothing, if there is nothing to draw.
    pub fn draw(&self) -> String {
        let drawn = self.lines.iter().filter(|line| line.points.iter().any(|point| point.1.is_some()));
        let lines: Vec<&Line> = drawn.take(LINES_MAX).collect();
        if lines.is_empty() {
            return String::new();
        }
        let points = || lines.iter().flat_map(|line| line.points.iter());
        let across = ends(points().map(|point| point.0), self.x.1);
        let up = ends(points().filter_map(|point| point.1), self.y.1);
        let [left, right, top, bottom] = MARGIN;
        let x = |at: f64| left + (at - across.0) / (across.1 - across.0).max(1e-12) * (WIDTH - left - right);
        let y = |at: f64| HEIGHT - bottom - (at - up.0) / (up.1 - up.0).max(1e-12) * (HEIGHT - top - bottom);
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title),
            escape(&self.title)
        );
        // Writing to a string does not fail.
        for (at, name) in ticks(up, self.y.1) {
            let at = y(at);
            let _ = write!(
                svg,
                "<line class=\"g\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                WIDTH - right,
                left - 6.0,
                at + 4.0
            );
        }
        for (at, name) in ticks(across, self.x.1) {
            let at = x(at);
            let _ = write!(
                svg,
                "<line class=\"g\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                HEIGHT - bottom,
                HEIGHT - bottom + 16.0
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - right,
            HEIGHT - 4.0,
            escape(self.x.0)
        );
        for line in &lines {
            let points = thinned(&line.points);
            let placed = points.iter().map(|(a, b)| (x(place(*a, self.x.1)), b.map(|b| y(place(b, self.y.1)))));
            svg.push_str(&path(placed, line));
        }
        svg.push_str("</svg>");
        svg.push_str(&self.legend(&lines));
        svg.push_str("</figure>");
        svg
    }

    fn legend(&self, lines: &[&Line]) -> String {
        let mut text = format!("<p class=\"legend\"><small>{}</small>", escape(&self.y.0));
        for line in lines {
            let mark = if line.dashed { "┄" } else { "━" };
            let colour = COLOURS[line.colour % COLOURS.len()];
            let _ = write!(text, " <span><b style=\"color:{colour}\">{mark}</b> {}</span>", escape(&line.name));
        }
        text.push_str("</p>");
        text
    }
}

/// A line with its holes (G1).
fn path(points: impl Iterator<Item = (f64, Option<f64>)>, line: &Line) -> String {
    let (mut data, mut down) = (String::new(), false);
    for (x, y) in points {
        match y {
            Some(y) => {
                let _ = write!(data, "{}{x:.1} {y:.1}", if down { "L" } else { "M" });
                down = true;
            }
            None => down = false,
        }
    }
    let dash = if line.dashed { " stroke-dasharray=\"5 3\"" } else { "" };
    let colour = COLOURS[line.colour % COLOURS.len()];
    format!("<path d=\"{data}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash}/>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: Vec<(f64, Option<f64>)>) -> Line {
        Line { name: "a <b>".to_owned(), colour: 0, dashed: false, points }
    }

    #[test]
    fn a_hole_is_a_hole_and_texts_are_escaped() {
        let points = vec![(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(1.0)), (4.0, Some(1.0))];
        let chart = Chart {
            title: "x & y".to_owned(),
            x: ("s", Scale::Even),
            y: ("n".to_owned(), Scale::Even),
            lines: vec![line(points)],
        };
        let svg = chart.draw();
        let data = svg.split("<path d=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert_eq!((data.matches('M').count(), data.matches('L').count()), (2, 2), "{data}");
        assert!(svg.contains("x &amp; y") && svg.contains("a &lt;b&gt;") && !svg.contains("<b>a"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_nothing() {
        let chart = |points| Chart {
            title: String::new(),
            x: ("", Scale::Nines),
            y: (String::new(), Scale::Log),
            lines: vec![line(points)],
        };
        assert_eq!(chart(vec![]).draw(), "");
        assert_eq!(chart(vec![(0.0, None)]).draw(), "");
        let all = chart(vec![(0.0, Some(0.0)), (0.5, Some(0.2)), (1.0, Some(1e5))]).draw();
        assert!(all.contains("<path") && !all.contains("NaN") && !all.contains("inf"));
    }

    #[test]
    fn long_lines_keep_their_peaks() {
        let mut points: Vec<_> = (0..10_000).map(|n| (f64::from(n), Some(1.0))).collect();
        points[7_777].1 = Some(99.0);
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS_MAX);
        assert!(thin.contains(&(7_777.0, Some(99.0))));
    }

    #[test]
    fn axes() {
        let names = |range, scale| ticks(range, scale).into_iter().map(|tick| tick.1).collect::<Vec<_>>().join(",");
        assert_eq!(names((0.0, 10.0), Scale::Even), "0,2,4,6,8,10");
        assert_eq!(names((0.0, 52_000.0), Scale::Even), "0,20 k,40 k");
        assert_eq!(names((-1.0, 2.0), Scale::Log), "0.1,1,10,100");
        assert_eq!(names((0.0, 3.0), Scale::Nines), "0,90 %,99 %,99.9 %");
    }
}
