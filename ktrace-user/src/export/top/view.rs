//! How `--top` looks, and what its keys do. Pure.

use std::cmp::Ordering;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as Cells, Table as Widget};

use super::super::escape::printable;
use super::super::text::milliseconds;
use super::figures::{Figures, Row, Table};
use crate::losses::Reason;

/// What the footer tells of the agent itself.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// So far, by reason.
    pub lost: Vec<(Reason, u64)>,
    /// TLS connections, by service.
    pub tls: Vec<(String, u64)>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    Look,
    Quit,
}

/// A column behind the name: its head, its width and what it holds.
struct Column {
    head: &'static str,
    width: u16,
    /// Groups send nothing.
    of_sending: bool,
    /// To sort by; none goes last.
    value: fn(&Row) -> Option<f64>,
    text: fn(f64) -> String,
}

const fn column(
    head: &'static str,
    width: u16,
    of_sending: bool,
    value: fn(&Row) -> Option<f64>,
    text: fn(f64) -> String,
) -> Column {
    Column { head, width, of_sending, value, text }
}

const COLUMNS: [Column; 8] = [
    column("sent/s", 8, true, |row| Some(row.sent), rate),
    column("dlvrd/s", 8, false, |row| Some(row.delivered), rate),
    column("errors/s", 9, false, |row| Some(row.errors), rate),
    column("send p50", 9, true, |row| Some(row.took_us?[0] as f64), time),
    column("p99", 7, true, |row| Some(row.took_us?[1] as f64), time),
    column("queue p50", 10, false, |row| Some(row.queue_us?[0] as f64), time),
    column("p99", 7, false, |row| Some(row.queue_us?[1] as f64), time),
    column("lag", 8, false, |row| Some(row.lag? as f64), count),
];

impl Table {
    fn columns(self) -> impl Iterator<Item = &'static Column> {
        COLUMNS.iter().filter(move |column| self != Self::Groups || !column.of_sending)
    }
}

/// What is looked at.
pub struct View {
    table: Table,
    /// The column that each table is sorted by; 0 is the name.
    sort: [usize; Table::ALL.len()],
    ascending: bool,
    /// Rows above the first that is shown.
    skipped: usize,
}

impl Default for View {
    fn default() -> Self {
        Self { table: Table::Topics, sort: [1; Table::ALL.len()], ascending: false, skipped: 0 }
    }
}

impl View {
    pub fn key(&mut self, key: KeyEvent) -> Wish {
        let shown = self.table as usize;
        let columns = self.table.columns().count() + 1;
        let sort = &mut self.sort[shown];
        let table = match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Tab => (shown + 1) % Table::ALL.len(),
            KeyCode::BackTab => (shown + Table::ALL.len() - 1) % Table::ALL.len(),
            KeyCode::Char('t') => 0,
            KeyCode::Char('g') => 1,
            KeyCode::Char('s') => 2,
            code => {
                match code {
                    KeyCode::Right => *sort = (*sort + 1) % columns,
                    KeyCode::Left => *sort = (*sort + columns - 1) % columns,
                    KeyCode::Char('r') => self.ascending = !self.ascending,
                    KeyCode::Down => self.skipped = self.skipped.saturating_add(1),
                    KeyCode::Up => self.skipped = self.skipped.saturating_sub(1),
                    KeyCode::Home => self.skipped = 0,
                    _ => return Wish::Nothing,
                }
                return Wish::Look;
            }
        };
        if let Some(table) = Table::ALL.get(table) {
            (self.table, self.skipped) = (*table, 0);
        }
        Wish::Look
    }

    /// The rows in their order. Names ascend where all else descends.
    fn sorted<'a>(&self, figures: &'a Figures) -> Vec<&'a Row> {
        let mut rows: Vec<_> = figures.rows(self.table).collect();
        let sort = self.sort[self.table as usize];
        let column = sort.checked_sub(1).and_then(|at| self.table.columns().nth(at));
        rows.sort_by(|a, b| {
            let by_name = a.name.cmp(&b.name);
            match column {
                None if self.ascending => by_name.reverse(),
                None => by_name,
                Some(Column { value, .. }) => match (value(a), value(b)) {
                    (Some(a), Some(b)) if self.ascending => a.total_cmp(&b),
                    (Some(a), Some(b)) => b.total_cmp(&a),
                    (None, None) => Ordering::Equal,
                    (None, _) => Ordering::Greater,
                    (_, None) => Ordering::Less,
                }
                .then(by_name),
            }
        });
        rows
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>, figures: &Figures, agent: &Agent) {
        let areas = [Constraint::Length(2), Constraint::Fill(1), Constraint::Length(2)];
        let [head, body, foot] = Layout::vertical(areas).areas(frame.area());
        frame.render_widget(self.head(figures.all()), head);
        let rows = self.sorted(figures);
        // One line is the table's head.
        let room = usize::from(body.height).saturating_sub(1);
        self.skipped = self.skipped.min(rows.len().saturating_sub(room));
        let shown = rows.into_iter().skip(self.skipped).take(room).map(|row| cells(row, self.table));
        let widths = [Constraint::Fill(1)]
            .into_iter()
            .chain(self.table.columns().map(|column| Constraint::Length(column.width)));
        frame.render_widget(Widget::new(shown, widths).header(self.heads()).column_spacing(0), body);
        frame.render_widget(footer(agent), foot);
    }

    fn head(&self, all: &Row) -> ratatui::text::Text<'static> {
        let numbers = format!(
            "{} sent/s  {} delivered/s  {} errors/s",
            rate(all.sent),
            rate(all.delivered),
            rate(all.errors)
        );
        let tables = ["Topics", "Groups", "Services"];
        let tabs = Table::ALL.iter().zip(tables).flat_map(|(table, name)| {
            let name = if *table == self.table { name.bold().reversed() } else { name.into() };
            [name, "  ".into()]
        });
        vec![Line::from(vec!["ktrace  ".bold(), numbers.into()]), tabs.collect()].into()
    }

    fn heads(&self) -> Cells<'static> {
        let sort = self.sort[self.table as usize];
        let mark = if self.ascending { '▲' } else { '▼' };
        let head = |at: usize, head: &str| if at == sort { format!("{head}{mark}") } else { head.to_owned() };
        let name = match self.table {
            Table::Topics => "topic",
            Table::Groups => "group · topic",
            Table::Services => "service",
        };
        let name = Cell::from(head(0, name));
        let others = self.table.columns().enumerate().map(|(at, column)| right(head(at + 1, column.head)));
        Cells::new([name].into_iter().chain(others)).style(Style::new().bold())
    }
}

fn cells(row: &Row, table: Table) -> Cells<'static> {
    let numbers =
        table.columns().map(|column| right((column.value)(row).map_or("-".to_owned(), column.text)));
    let style = if row.errors > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
    Cells::new([Cell::from(printable(&row.name).into_owned())].into_iter().chain(numbers)).style(style)
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn footer(agent: &Agent) -> ratatui::text::Text<'static> {
    let listed = |counts: &mut dyn Iterator<Item = (String, u64)>| {
        counts.map(|(what, count)| format!("{count} {}", printable(&what))).collect::<Vec<_>>().join(", ")
    };
    let lost = listed(
        &mut agent
            .lost
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| (what.to_string(), *count)),
    );
    let tls = listed(&mut agent.tls.iter().map(|(service, count)| (format!("of {service}"), *count)));
    let mut told = vec![if lost.is_empty() { "nothing lost".dim() } else { format!("lost: {lost}").red() }];
    if !tls.is_empty() {
        told.push(format!("  TLS, not read: {tls}").yellow());
    }
    let keys = "q quit  t g s or Tab table  ← → sort by  r reverse  ↑ ↓ scroll";
    vec![Line::from(told), Line::from(keys.dim())].into()
}

/// A second.
fn rate(rate: f64) -> String {
    match rate {
        _ if rate == 0.0 => "0".to_owned(),
        _ if rate < 10.0 => format!("{rate:.1}"),
        _ if rate < 100_000.0 => format!("{rate:.0}"),
        _ => format!("{:.0}k", rate / 1000.0),
    }
}

/// Of microseconds.
fn time(us: f64) -> String {
    match us {
        _ if us < 1000.0 => format!("{us:.0}µs"),
        _ if !(100e6..2.0 * DAY_US).contains(&us) => milliseconds(us / 1000.0),
        _ => format!("{:.0}s", us / 1e6),
    }
}

const DAY_US: f64 = 24.0 * 3600.0 * 1e6;

/// What does not fit is cut, and its beginning is what counts.
fn count(count: f64) -> String {
    match count {
        _ if count < 10_000_000.0 => format!("{count:.0}"),
        _ if count < 10e9 => format!("{:.0}k", count / 1e3),
        _ if count < 10e12 => format!("{:.0}M", count / 1e6),
        _ => format!("{count:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::hop::topics::Topics;
    use crate::hop::{Hop, Hops, Topic, samples};

    fn figures() -> Figures {
        let (mut hops, mut topics) = (Hops::default(), Topics::default());
        let mut to = |name: &str, hop: Hop| Hop { topic: Topic::Named(topics.named(name)), ..hop };
        for _ in 0..20 {
            hops.push(to("orders", samples::sent()));
        }
        let mut failed = samples::sent();
        failed.passage.error = 19;
        hops.push(to("an\u{1b}other", failed));
        for _ in 0..3 {
            hops.push(to("orders", samples::delivered()));
        }
        hops.push(to("payments", samples::delivered()));
        let mut figures = Figures::default();
        figures.add(&hops);
        figures.turn(1.0);
        figures
    }

    fn screen(view: &mut View, size: (u16, u16), agent: &Agent) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| view.draw(frame, &figures(), agent)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..size.1).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn press(view: &mut View, codes: &[KeyCode]) {
        codes.iter().for_each(|code| assert_eq!(view.key(KeyEvent::from(*code)), Wish::Look));
    }

    #[test]
    fn golden_screen() {
        let agent = Agent {
            lost: vec![(Reason::RingFull, 12), (Reason::GapBytes, 0)],
            tls: vec![("web".to_owned(), 2)],
        };
        assert_eq!(
            screen(&mut View::default(), (90, 8), &agent),
            [
                "ktrace  21 sent/s  4.0 delivered/s  1.0 errors/s",
                "Topics  Groups  Services",
                "topic                    sent/s▼ dlvrd/s errors/s send p50    p99 queue p50    p99     lag",
                "orders                        20     3.0        0    3.1ms  3.1ms      34ms   34ms       3",
                "an\u{fffd}other                     1.0       0      1.0    3.1ms  3.1ms         -      -       -",
                "payments                       0     1.0        0        -      -      34ms   34ms       3",
                "lost: 12 ring_full  TLS, not read: 2 of web",
                "q quit  t g s or Tab table  ← → sort by  r reverse  ↑ ↓ scroll",
            ]
        );
    }

    #[test]
    fn keys_choose_table_order_and_place() {
        let (mut view, agent) = (View::default(), Agent::default());
        let names = |view: &mut View, height| {
            let lines = screen(view, (80, height), &Agent::default());
            let rows = lines[3..lines.len() - 2].iter();
            rows.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut view, 8), ["orders", "an\u{fffd}other", "payments"]);
        press(&mut view, &[KeyCode::Right]);
        assert_eq!(names(&mut view, 8), ["orders", "payments", "an\u{fffd}other"]);
        press(&mut view, &[KeyCode::Char('r')]);
        assert_eq!(names(&mut view, 8), ["an\u{fffd}other", "payments", "orders"]);
        press(&mut view, &[KeyCode::Left, KeyCode::Left]);
        assert_eq!(names(&mut view, 8), ["payments", "orders", "an\u{fffd}other"], "names, reversed");
        press(&mut view, &[KeyCode::Left]);
        let last = names(&mut view, 8);
        assert_eq!(last[2], "an\u{fffd}other", "what has no lag comes last, also in reverse");
        press(&mut view, &[KeyCode::Down; 9]);
        assert_eq!(names(&mut view, 6), ["an\u{fffd}other"], "not beyond the end");
        press(&mut view, &[KeyCode::Up, KeyCode::Up]);
        assert_eq!(names(&mut view, 6), last[..1]);
        press(&mut view, &[KeyCode::Tab]);
        let lines = screen(&mut view, (80, 8), &agent);
        assert!(lines[2].starts_with("group · topic") && lines[6] == "nothing lost", "{lines:#?}");
        assert!(lines[3].starts_with("billing · payments"), "{lines:#?}");
        assert!(!lines[2].contains("sent/s") && lines[2].contains("dlvrd/s▲"), "{lines:#?}");
        press(&mut view, &[KeyCode::Char('s'), KeyCode::Left]);
        assert_eq!(names(&mut view, 8)[..2], ["orders-api", "billing"], "each table has its own order");
        assert_eq!(view.key(KeyEvent::from(KeyCode::Char('x'))), Wish::Nothing);
        assert_eq!(view.key(KeyEvent::from(KeyCode::Char('q'))), Wish::Quit);
        assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    }

    #[test]
    fn a_tiny_screen_is_no_trouble() {
        for size in [(1, 1), (10, 3), (200, 2)] {
            screen(&mut View::default(), size, &Agent::default());
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.4, 12.3, 99_999.0, 1_234_567.0].map(rate), ["0", "0.4", "12", "99999", "1235k"]);
        assert_eq!(
            [0.0, 999.0, 3100.0, 12.3e6, 37_312.5e6, 60.0 * DAY_US].map(time),
            ["0µs", "999µs", "3.1ms", "12.3s", "37312s", "60d"]
        );
        // As wide as its column at most, or its last digits would pass for all of it.
        let lags = [0.0, 9_999_999.0, 123_456_789.0, 123_456_789_012.0, i64::MAX as f64].map(count);
        assert_eq!(lags, ["0", "9999999", "123457k", "123457M", "9e18"]);
    }
}
