//! Record headers: pairs of a key, mostly one of a trace context format, and a value.

use ktrace_kafka::context::{Extractor, Slots, Wanted, keys};

use super::input::Input;
use super::watch::check_found as check;

/// A header's key of the fuzzer's choice.
pub fn key<'a>(input: &mut Input<'a>) -> &'a [u8] {
    thread_local! {
        static KEYS: Vec<&'static str> = keys().collect();
    }
    let choice = usize::from(input.u8());
    if choice >= 0xf0 {
        return input.take(choice - 0xf0);
    }
    KEYS.with(|keys| keys[choice % keys.len()].as_bytes())
}

fn noted<'a, K: AsRef<[u8]>>(extractor: &Extractor, headers: &[(K, &'a [u8])]) -> Slots<'a> {
    let mut slots = Slots::new();
    for (key, value) in headers {
        extractor.note(&mut slots, key.as_ref(), value);
    }
    slots
}

/// Runs one input.
pub fn run(data: &[u8]) {
    thread_local! {
        static EXTRACTORS: [Extractor; 2] = [
            Extractor::default(),
            Extractor::new(&[
                Wanted::Key("mine".into()),
                Wanted::Format("b3".into()),
                Wanted::Format("traceparent".into()),
                Wanted::Key("traceparent".into()),
            ])
            .expect("known formats"),
        ];
    }
    let mut input = Input(data);
    let which = usize::from(input.u8() & 1);
    let mut headers = vec![];
    while !input.is_empty() {
        let key = key(&mut input);
        let len = usize::from(input.u8());
        headers.push((key, input.take(len)));
    }
    EXTRACTORS.with(|extractors| {
        let extractor = &extractors[which];
        let mut slots = noted(extractor, &headers);
        let found = extractor.find(&mut slots);
        check(&found);
        assert!(found.context.is_none() || !headers.is_empty());
        let names: Vec<_> = extractor.names(found.malformed).collect();
        assert_eq!(names.len(), found.malformed.len() as usize);

        let upper: Vec<_> = headers.iter().map(|(key, value)| (key.to_ascii_uppercase(), *value)).collect();
        assert_eq!(extractor.find(&mut noted(extractor, &upper)), found, "keys match in any case");
        // Of a repeated key the last counts, so only then does the order matter.
        let mut keys: Vec<_> = upper.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        if keys.windows(2).all(|pair| pair[0] != pair[1]) {
            headers.reverse();
            assert_eq!(extractor.find(&mut noted(extractor, &headers)), found, "headers stand in any order");
        }
    });
}
