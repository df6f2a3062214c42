//! Patterns of names, as users write them: `orders*`, `!*-retry`.

use globset::{Glob, GlobMatcher};

/// Names that are wanted. Empty: all.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    only: Vec<GlobMatcher>,
    not: Vec<GlobMatcher>,
}

impl Patterns {
    /// Patterns with a leading `!` leave out.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let (mut only, mut not) = (Vec::new(), Vec::new());
        for pattern in patterns {
            let (list, pattern) = match pattern.strip_prefix('!') {
                Some(pattern) => (&mut not, pattern),
                None => (&mut only, pattern.as_str()),
            };
            list.push(Glob::new(pattern)?.compile_matcher());
        }
        Ok(Self { only, not })
    }

    /// Whether all names are wanted.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.only.is_empty() && self.not.is_empty()
    }

    /// `name` is asked for only where there are patterns.
    pub fn keep<N: AsRef<str>>(&self, name: impl FnOnce() -> Option<N>) -> bool {
        if self.is_all() {
            return true;
        }
        let name = name();
        let name = name.as_ref().map(AsRef::as_ref);
        // A key may hold what patterns give a meaning to.
        let is = |glob: &GlobMatcher, name: &str| glob.is_match(name) || glob.glob().glob() == name;
        let matches =
            |list: &[GlobMatcher]| name.is_some_and(|name: &str| list.iter().any(|glob| is(glob, name)));
        (self.only.is_empty() || matches(&self.only)) && !matches(&self.not)
    }
}
