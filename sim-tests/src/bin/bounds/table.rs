//! The figures, each beside its bound.

/// What a figure must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// Nothing is demanded.
    None,
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// The unit of a figure, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, written in MiB.
    Bytes,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Ms,
    /// So many a second.
    PerSecond,
    /// A number of things.
    Count,
    /// A ratio.
    Times,
}

/// A table that grows line by line and is printed as it grows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    broken: Vec<String>,
}

impl Table {
    /// Adds a figure. A bound that does not hold is remembered.
    pub(crate) fn add(&mut self, name: &str, figure: f64, unit: Unit, bound: Bound) {
        let (written, holds) = match bound {
            Bound::None => (String::new(), true),
            Bound::AtMost(most) => (format!("<= {}", unit.write(most)), figure <= most),
            Bound::AtLeast(least) => (format!(">= {}", unit.write(least)), least <= figure),
        };
        let verdict = match (bound, holds) {
            (Bound::None, _) => "",
            (_, true) => "holds",
            (_, false) => "BROKEN",
        };
        println!("{name:<64} {:>16} {written:>20}  {verdict}", unit.write(figure));
        if !holds {
            self.broken.push(name.to_owned());
        }
    }

    /// The figures whose bounds do not hold.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }
}

impl Unit {
    fn write(self, figure: f64) -> String {
        match self {
            Unit::Bytes => format!("{:.1} MiB", figure / f64::from(1 << 20)),
            Unit::Seconds => format!("{figure:.2} s"),
            Unit::Ms => format!("{figure:.1} ms"),
            Unit::PerSecond => format!("{figure:.0} /s"),
            Unit::Count => format!("{figure:.0}"),
            Unit::Times => format!("{figure:.2} x"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_bounds_are_remembered() {
        let mut table = Table::default();
        table.add("small", 1.0, Unit::Ms, Bound::AtMost(1.0));
        table.add("free", 1e9, Unit::Bytes, Bound::None);
        assert!(table.broken().is_empty());
        table.add("slow", 1.0, Unit::PerSecond, Bound::AtLeast(1.1));
        table.add("large", 2.0, Unit::Times, Bound::AtMost(1.9));
        assert_eq!(table.broken(), ["slow", "large"]);
    }
}
