//! The table itself: figures of all rounds, their yardsticks, and what is asked for.

use crate::ledger::Verdict;
use crate::report::text::number;

/// What a row has to come to: its ratio if it has a yardstick, else its figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// For orientation only.
    None,
}

impl Target {
    fn text(self, met_by: Option<f64>) -> String {
        let (sign, bound, met) = match self {
            Self::AtLeast(bound) => ('≥', bound, met_by.map(|value| value >= bound)),
            Self::AtMost(bound) => ('≤', bound, met_by.map(|value| value <= bound)),
            Self::None => return "–".to_owned(),
        };
        let verdict = match met {
            Some(true) => " met",
            Some(false) => " **missed**",
            None => "",
        };
        format!("{sign} {bound}{verdict}")
    }
}

/// One line of the table.
struct Row {
    name: String,
    ours: (Vec<f64>, &'static str),
    yardstick: (Vec<f64>, &'static str),
    ratio: Vec<f64>,
    target: Target,
}

/// Rows in the order of their first figure.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    pub(super) verdict: Verdict,
}

impl Table {
    /// One figure with its yardstick.
    pub(super) fn put(
        &mut self,
        name: &str,
        ours: (f64, &'static str),
        yardstick: Option<(f64, &'static str)>,
        target: Target,
    ) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let (ours, yardstick) = ((Vec::new(), ours.1), (Vec::new(), ""));
            self.rows.push(Row { name: name.to_owned(), ours, yardstick, ratio: Vec::new(), target });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.ours.0.push(ours.0);
        if let Some((value, unit)) = yardstick {
            row.yardstick.0.push(value);
            row.yardstick.1 = unit;
            row.ratio.push(ours.0 / value);
        }
    }

    pub(super) fn judge(&mut self, verdict: Verdict) {
        self.verdict = self.verdict.and(verdict);
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = "| Measure | Target | Ratio | Here | Yardstick |\n|---|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let ratio = spread(&row.ratio).unwrap_or("–".to_owned());
            let with_unit = |(values, unit): &(Vec<f64>, &str)| {
                spread(values).map_or("–".to_owned(), |spread| format!("{spread} {unit}"))
            };
            let (ours, yardstick) = (with_unit(&row.ours), with_unit(&row.yardstick));
            let target = row.target.text(median(&row.ratio).or(median(&row.ours.0)));
            text.push_str(&format!("| {} | {target} | {ratio} | {ours} | {yardstick} |\n", row.name));
        }
        text
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// `None` of nothing.
fn median(values: &[f64]) -> Option<f64> {
    let (sorted, middle) = (sorted(values), values.len() / 2);
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// Median and range; `None` of nothing (A2).
fn spread(values: &[f64]) -> Option<String> {
    let sorted = sorted(values);
    let (low, high) = (sorted.first()?, sorted.last()?);
    Some(format!("**{}** ({}–{})", number(median(values)?), number(*low), number(*high)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[2.0]).as_deref(), Some("**2.00** (2.00–2.00)"));
        assert_eq!(spread(&[3.0, 1.0, 2.0]).as_deref(), Some("**2.00** (1.00–3.00)"));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).as_deref(), Some("**2.50** (1.00–4.00)"));
    }

    #[test]
    fn the_table_divides_within_a_round_and_judges_the_median() {
        let mut table = Table::default();
        table.put("sends", (50.0, "sends/s"), Some((100.0, "answers/s")), Target::AtLeast(0.4));
        table.put("alone", (7.0, "ms"), None, Target::AtMost(5.0));
        table.put("orientation", (1.0, "ms"), None, Target::None);
        table.put("sends", (90.0, "sends/s"), Some((100.0, "answers/s")), Target::AtLeast(0.4));
        let lines: Vec<String> = table.markdown().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[2],
            "| sends | ≥ 0.4 met | **0.70** (0.50–0.90) | **70.0** (50.0–90.0) sends/s | **100** (100–100) answers/s |"
        );
        assert_eq!(lines[3], "| alone | ≤ 5 **missed** | – | **7.00** (7.00–7.00) ms | – |");
        assert_eq!(lines[4], "| orientation | – | – | **1.00** (1.00–1.00) ms | – |");
    }
}
