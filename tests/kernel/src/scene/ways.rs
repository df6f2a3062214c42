//! Every way to send against a way to receive, in both directions, over each family, in small and
//! in large.

use std::net::Shutdown;

use anyhow::{Context as _, Result, ensure};

use super::stage::{Family, Stage, server};
use crate::bytes::Random;
use crate::receive::{RECEIVINGS, Receiving};
use crate::send::{SENDINGS, Sending};
use crate::talk::{End, Sign, Talk, ends_of};

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    let mut able: Vec<Sending> = Vec::new();
    for sending in SENDINGS {
        match (sending.lacking)() {
            None => able.push(sending),
            Some(why) => stage.lacks(sending.name, why)?,
        }
    }
    let mut turn = 0;
    for (index, sending) in able.iter().enumerate() {
        for family in Family::ALL {
            if stage.short && family != Family::ALL[index % 3] {
                continue;
            }
            for len in lengths(stage, family) {
                // each way to receive comes to each way to send, and the other way round
                turn += 1;
                let receivings =
                    [&RECEIVINGS[turn % RECEIVINGS.len()], &RECEIVINGS[(turn / 2) % RECEIVINGS.len()]];
                let sendings = [sending, &able[turn % able.len()]];
                talk(stage, family, sendings, receivings, len)?;
            }
        }
    }
    Ok(())
}

fn lengths(stage: &mut Stage, family: Family) -> Vec<usize> {
    let mut lengths = vec![1, stage.random.between(2, 3000), stage.random.between(60_000, 140_000)];
    if !stage.short && !stage.lossy {
        lengths.push(stage.random.between(200_000, 900_000));
        if family != Family::Mapped {
            lengths.push(3 << 20);
        }
    }
    lengths
}

/// Client and server send in the first and the second of the two ways; server and client receive in
/// the first and the second.
fn talk(
    stage: &mut Stage,
    family: Family,
    sendings: [&Sending; 2],
    receivings: [&Receiving; 2],
    len: usize,
) -> Result<()> {
    let [to, back] = sendings.map(|sending| sending.name);
    let [there, here] = receivings.map(|receiving| receiving.name);
    let name = format!("{to} -> {there}, {here} <- {back}, {len} bytes, {}", family.name());
    let back_len = stage.random.between(1, len);
    let (to_broker, to_client) = (stage.payload(len), stage.payload(back_len));
    let mut random = Random::new(stage.random.next());
    let listener = family.listener()?;
    let mut served = Random::new(stage.random.next());
    let serving = server(&listener, |socket| {
        let received = (receivings[0].receive)(socket, to_broker.len, &mut served)?;
        ensure!(received == to_broker.bytes(), "the server received other bytes");
        (sendings[1].send)(socket, &to_client.bytes(), &mut served)?;
        socket.shutdown(Shutdown::Write)?;
        Ok(())
    })?;
    let mut asking = || -> Result<(End, _)> {
        let socket = family.connect()?;
        let (client, ends) = (End::of(&socket)?, ends_of(&socket)?);
        (sendings[0].send)(&socket, &to_broker.bytes(), &mut random)?;
        let received = (receivings[1].receive)(&socket, to_client.len, &mut random)?;
        ensure!(received == to_client.bytes(), "the client received other bytes");
        Ok((client, ends))
    };
    let (client, ends) = asking().with_context(|| name.clone())?;
    let server = serving.join().with_context(|| name.clone())?;
    stage.tell(Talk { name, ends, client, server, to_broker, to_client, sign: Sign::Nothing })
}
