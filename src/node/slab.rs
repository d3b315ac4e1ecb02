//! Numbered places for what is under way; a number is never mistaken for a later tenant's.

/// A place and its tenant's number: a reply that comes too late finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticket(u64);

impl Ticket {
    /// As peers carry it.
    pub(super) const fn number(self) -> u64 {
        self.0
    }

    /// As a peer brought it back; any number is legal.
    pub(super) const fn of(number: u64) -> Ticket {
        Ticket(number)
    }

    const fn index(self) -> usize {
        (self.0 & 0xFFFF_FFFF) as usize
    }

    const fn tenant(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Places that are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Ticket {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("fewer things under way than 2^32")
        });
        let place = &mut self.places[index as usize];
        place.1 = Some(value);
        Ticket(u64::from(place.0) << 32 | u64::from(index))
    }

    pub(super) fn find(&mut self, ticket: Ticket) -> Option<&mut T> {
        let (tenant, value) = self.places.get_mut(ticket.index())?;
        if *tenant == ticket.tenant() { value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.find(ticket)?;
        let (tenant, value) = &mut self.places[ticket.index()];
        // The upper bit of the number is the peers' to use.
        *tenant = tenant.wrapping_add(1) & (u32::MAX >> 1);
        self.free.push(ticket.index() as u32);
        value.take()
    }

    /// Tickets of what `wanted` says yes to.
    pub(super) fn tickets(&self, mut wanted: impl FnMut(&T) -> bool) -> Vec<Ticket> {
        let live = self.places.iter().enumerate().filter_map(|(index, (tenant, value))| {
            value.as_ref().map(|value| (index, *tenant, value))
        });
        live.filter(|(_, _, value)| wanted(value))
            .map(|(index, tenant, _)| Ticket(u64::from(tenant) << 32 | index as u64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_ticket_finds_nobody() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(slab.find(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.find(Ticket::of(second.number())), Some(&mut 'b'));
        assert_eq!(slab.find(Ticket::of(u64::MAX)), None);
        assert_eq!(slab.tickets(|_| true), vec![second]);
    }
}
