// A list that shows any number of items with as many elements as fit on the screen. This module
// knows rows of equal height, the keyboard and the selection. It does not know what is in a row.

export class List {
  // `element` scrolls. `fill(cells, item)` writes an item into the six cells of a row and returns
  // the row's class. `select(item)` is called if the user selects an item, or none (null).
  constructor(element, fill, select) {
    this.element = element;
    this.items = [];
    this.count = 0; // how many of them are shown; the array may have grown
    this.selected = null;
    this.fill = fill;
    this.select = select;
    this.rows = [];
    this.space = document.createElement('div');
    this.space.setAttribute('role', 'none');
    element.append(this.space);
    this.follows = true;
    this.row = 0;
    this.height = 0;
    new ResizeObserver(() => this.measure()).observe(element);
    element.addEventListener('scroll', () => {
      // (If the list has a new size, or none, `measure` comes next, and this is not the user.)
      if (!this.row || element.clientHeight !== this.height) return;
      const end = this.count * this.row - this.height;
      this.follows = element.scrollTop >= end - this.row;
      this.draw();
    });
    element.addEventListener('keydown', (event) => this.onKey(event));
    element.addEventListener('click', (event) => {
      const row = event.target.closest('.row');
      if (row) this.choose(row.item === this.selected ? null : row.item);
    });
  }

  measure() {
    const probe = this.makeRow();
    this.row = probe.offsetHeight;
    probe.remove();
    this.height = this.element.clientHeight;
    if (this.row) this.show(this.items, 0, true);
  }

  makeRow() {
    const row = document.createElement('div');
    row.className = 'row';
    row.setAttribute('role', 'option');
    for (let i = 0; i < 6; i++) row.append(document.createElement('span'));
    row.children[3].className = row.children[4].className = 'number';
    this.element.append(row);
    return row;
  }

  // Show items; the first `dropped` of those shown before are no longer among them.
  show(items, dropped = 0, afresh = false) {
    this.items = items;
    this.count = items.length;
    if (!this.row) return;
    this.space.style.height = this.count * this.row + 'px';
    if (this.follows) {
      this.element.scrollTop = this.count * this.row - this.height;
    } else if (dropped) {
      this.element.scrollTop -= dropped * this.row;
    }
    this.draw(afresh);
  }

  draw(afresh = false) {
    const {items, rows, row: height} = this;
    const total = Math.min(this.count, items.length);
    if (!height) return;
    const first = Math.max(0, Math.floor(this.element.scrollTop / height) - 1);
    const count = Math.min(total - first, Math.ceil(this.height / height) + 2);
    while (rows.length < count) {
      rows.push(this.makeRow());
      rows.at(-1).id = this.element.id + '-' + rows.length;
    }
    const chosen = this.selected;
    this.element.removeAttribute('aria-activedescendant');
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      // A row keeps its item while the list scrolls.
      const at = first + ((i - first % rows.length) + rows.length) % rows.length;
      row.hidden = at >= first + count;
      if (row.hidden) continue;
      const item = items[at];
      if (afresh || row.item !== item) {
        row.item = item;
        row.className = 'row ' + this.fill(row.children, item);
      }
      if (row.at !== at || row.of !== total) {
        row.at = at;
        row.of = total;
        row.style.top = at * height + 'px';
        row.setAttribute('aria-posinset', at + 1);
        row.setAttribute('aria-setsize', total);
      }
      row.setAttribute('aria-selected', item === chosen);
      if (item === chosen) this.element.setAttribute('aria-activedescendant', row.id);
    }
  }

  choose(item) {
    this.selected = item;
    this.draw();
    this.select(item);
  }

  onKey(event) {
    const last = this.count - 1;
    const at = this.items.indexOf(this.selected);
    const page = Math.max(1, Math.floor(this.height / this.row) - 1);
    const to = {ArrowDown: at + 1, ArrowUp: at < 0 ? last : at - 1, Home: 0, End: last,
      PageDown: at + page, PageUp: (at < 0 ? last : at) - page}[event.key];
    if (event.key === 'Escape' && this.selected) {
      this.choose(null);
    } else if (to === undefined || last < 0 || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    } else {
      const next = Math.min(last, Math.max(0, to));
      const top = next * this.row;
      const shown = this.element.scrollTop;
      this.element.scrollTop = Math.min(top, Math.max(shown, top + this.row - this.height));
      this.choose(this.items[next]);
    }
    event.preventDefault();
  }
}
