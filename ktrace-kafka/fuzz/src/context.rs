//! Record headers: pairs of a key, mostly one of a trace context format, and a value.

use ktrace_kafka::context::{Extractor, Found, Slots, Wanted, keys};

use super::input::Input;

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

fn find<'a, K: AsRef<[u8]>>(extractor: &Extractor, headers: &[(K, &'a [u8])]) -> Found<'a> {
    let mut slots = Slots::new();
    for (key, value) in headers {
        extractor.note(&mut slots, key.as_ref(), value);
    }
    extractor.find(&slots)
}

/// See the module.
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
        let found = find(extractor, &headers);
        if let Some(context) = found.context {
            assert_ne!(context.trace_id.to_bytes(), [0; 16]);
            assert!(context.span_id.is_none_or(|id| id.to_bytes() != [0; 8]));
            assert!(!headers.is_empty());
        } else {
            assert_eq!(found.others, 0);
        }
        let upper: Vec<_> = headers.iter().map(|(key, value)| (key.to_ascii_uppercase(), *value)).collect();
        assert_eq!(find(extractor, &upper), found, "keys match in any case");
        // Of a repeated key the last counts, so only then does the order matter.
        let mut names: Vec<_> = upper.iter().map(|(key, _)| key).collect();
        names.sort_unstable();
        if names.windows(2).all(|pair| pair[0] != pair[1]) {
            headers.reverse();
            assert_eq!(find(extractor, &headers), found, "headers stand in any order");
        }
    });
}
