//! Patterns of names: `*`, `?`, `[a-z]`, `[^a]` and `\`, as Redis's KEYS has them.

/// Whether all of `text` matches `pattern`.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on if what follows the last star does not fit: with one byte more for the star. One step back is enough,
    // since an earlier star can take nothing that the last one could not.
    let mut star: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut text) = (pattern, text);
    loop {
        if let [b'*', rest @ ..] = pattern {
            star = Some((rest, text));
            pattern = rest;
            continue;
        }
        let step = match (one(pattern), text) {
            (None, []) => return true,
            (Some((is_it, rest)), [byte, others @ ..]) if is_it(*byte) => Some((rest, others)),
            _ => None,
        };
        (pattern, text) = match (step, star) {
            (Some(step), _) => step,
            (None, Some((rest, [_, others @ ..]))) => {
                star = Some((rest, others));
                (rest, others)
            }
            (None, _) => return false,
        };
    }
}

type Test<'p> = Box<dyn Fn(u8) -> bool + 'p>;

/// What the next byte must be, and the rest of the pattern.
fn one(pattern: &[u8]) -> Option<(Test<'_>, &[u8])> {
    Some(match pattern {
        [] => return None,
        [b'?', rest @ ..] => (Box::new(|_| true), rest),
        [b'\\', wanted, rest @ ..] => (Box::new(move |byte| byte == *wanted), rest),
        [b'[', class @ ..] => {
            let (negated, class) = match class {
                [b'^', class @ ..] => (true, class),
                class => (false, class),
            };
            let (ranges, rest) = ranges(class);
            (Box::new(move |byte| ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != negated), rest)
        }
        [wanted, rest @ ..] => (Box::new(move |byte| byte == *wanted), rest),
    })
}

/// The ranges of a class, and what follows it. One that does not end goes to the end of the pattern.
fn ranges(mut class: &[u8]) -> (Vec<(u8, u8)>, &[u8]) {
    let mut ranges = Vec::new();
    loop {
        class = match class {
            [] => return (ranges, &[]),
            [b']', rest @ ..] => return (ranges, rest),
            [b'\\', byte, rest @ ..] => {
                ranges.push((*byte, *byte));
                rest
            }
            [one, b'-', other, rest @ ..] => {
                ranges.push((*one.min(other), *one.max(other)));
                rest
            }
            [byte, rest @ ..] => {
                ranges.push((*byte, *byte));
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("*", vec!["", "a", "a*b"], vec![]),
            ("", vec![""], vec!["a"]),
            ("a*c", vec!["ac", "abc", "abcc"], vec!["ab", "bac", "acb"]),
            ("*a*b*", vec!["ab", "xaxbx", "aab"], vec!["ba", "a"]),
            ("h?llo", vec!["hello", "hallo"], vec!["hllo", "heello"]),
            ("h[ae]llo", vec!["hello", "hallo"], vec!["hillo"]),
            ("h[^e]llo", vec!["hallo"], vec!["hello"]),
            ("h[a-c]llo", vec!["hbllo"], vec!["hdllo"]),
            ("h[c-a]llo", vec!["hbllo"], vec!["hdllo"]),
            (r"a\*b", vec!["a*b"], vec!["axb"]),
            (r"[\]]", vec!["]"], vec!["a"]),
            ("[ab", vec!["a", "b"], vec!["c", "ab"]),
            ("orders:*:new", vec!["orders:1:new", "orders::new:new"], vec!["orders:new"]),
        ] {
            for (text, expected) in
                yes.into_iter().map(|text| (text, true)).chain(no.into_iter().map(|text| (text, false)))
            {
                assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
            }
        }
        // Were every star tried with every length, this would not end.
        let stars = format!("{}b", "*a".repeat(50));
        assert!(!matches(stars.as_bytes(), "a".repeat(10_000).as_bytes()));
    }
}
