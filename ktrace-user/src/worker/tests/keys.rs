//! Keys leave the record only where they are asked for.

use super::*;
use crate::hop::Key;

#[test]
fn keys_are_copied_only_where_they_are_asked_for() {
    for (keys, expected) in [(false, None), (true, Some(Key::new(b"")))] {
        let options = WorkerOptions { keys, ..WorkerOptions::default() };
        let mut watched = Watched::with(options, &Arc::default());
        let mut request = produce(5, "orders", &[]);
        // Behind the null key come the null value and no headers: an empty key instead.
        let at = request.len() - 3;
        request[at] = 0;
        watched.talk(ends(4000), (100, 200), &request, &produced(5, "orders", 42));
        let null = produce(6, "orders", &[]);
        let next = (100 + request.len() as u32, 200 + produced(5, "orders", 42).len() as u32);
        watched.talk(ends(4000), next, &null, &produced(6, "orders", 43));
        let found: Vec<_> = watched.hops().iter().map(|hop| hop.passage.key.clone()).collect();
        assert_eq!(found, [expected, None]);
    }
}
