// The slider of the history page: moving it shows the document as it was, without loading the page anew.
// The server renders every moment (`?part=moment`), so that what a document holds is escaped in one place only.
'use strict';

(() => {
  const page = document.querySelector('.history[data-page-url]');
  if (!page) return;
  const WAIT_MILLISECONDS = 120;
  const PLAY_MILLISECONDS = 900;
  const range = document.getElementById('seq-range');
  const number = document.getElementById('seq-number');
  const time = document.getElementById('at');
  const moment = document.getElementById('moment');
  const pageUrl = page.dataset.pageUrl;
  let timer = 0;
  let running = new AbortController();
  let playing = false;

  /** The address of a moment that keeps the page of runs and the view. */
  function address(query) {
    const url = new URL(pageUrl, location.href);
    const now = new URLSearchParams(location.search);
    for (const name of ['before', 'show', 'from', 'deleted']) {
      if (now.get(name)) url.searchParams.set(name, now.get(name));
    }
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }

  const show = (query) => open(address(query));

  function open(url) {
    clearTimeout(timer);
    running.abort();
    running = new AbortController();
    url.searchParams.set('part', 'moment');
    return load(url, running.signal).catch((error) => {
      if (error.name === 'AbortError') return;
      stop();
      tell('The server cannot be reached. Move the slider to try again.');
    });
  }

  async function load(url, signal) {
    moment.setAttribute('aria-busy', 'true');
    const answer = await fetch(url, { signal, credentials: 'same-origin' });
    const html = await answer.text();
    // A login page or a proxy's error is no moment.
    const parts = new DOMParser().parseFromString(html, 'text/html');
    const shown = parts.querySelector('.moment-bar, .problem');
    if (!shown || parts.querySelector('main, #container')) {
      stop();
      tell(answer.status === 404 ? 'You may no longer see this document.' : 'This could not be loaded. Load the page again.');
      return;
    }
    moment.replaceChildren(...document.adoptNode(parts.body).childNodes);
    moment.removeAttribute('aria-busy');
    if (shown.classList.contains('moment-bar')) arrived(shown.dataset, new URL(answer.url));
    else stop();
  }

  /** `url` is where the moment came from in the end: a step is answered with another address. */
  function arrived({ seq, headSeq, at }, url) {
    range.max = number.max = headSeq;
    range.value = number.value = seq;
    time.value = at;
    mark(Number(seq));
    for (const name of ['part', 'at', 'step']) url.searchParams.delete(name);
    url.searchParams.set('seq', seq);
    history.replaceState(null, '', url);
    if (playing && seq !== headSeq) timer = setTimeout(() => show({ seq, step: 'next' }), PLAY_MILLISECONDS);
    else stop();
  }

  function tell(words) {
    const problem = document.createElement('p');
    problem.className = 'problem';
    problem.setAttribute('role', 'alert');
    problem.textContent = words;
    moment.querySelector(':scope > .problem')?.remove();
    moment.prepend(problem);
    moment.removeAttribute('aria-busy');
  }

  /** Mark the run that the moment lies in: the shortest one, for those of several people overlap. */
  function mark(seq) {
    let here = null;
    for (const run of page.querySelectorAll('.run')) {
      run.classList.remove('here');
      run.querySelector('.run-link').removeAttribute('aria-current');
      const { firstSeq, lastSeq } = run.dataset;
      if (seq < firstSeq || seq > lastSeq) continue;
      if (!here || lastSeq - firstSeq < here.dataset.lastSeq - here.dataset.firstSeq) here = run;
    }
    here?.classList.add('here');
    here?.querySelector('.run-link').setAttribute('aria-current', 'true');
    if (here) bringIntoSight(here);
  }

  /** Scroll the list, and nothing around it. */
  function bringIntoSight(run) {
    const list = run.parentElement;
    const { top, bottom } = run.getBoundingClientRect();
    const box = list.getBoundingClientRect();
    if (top < box.top) list.scrollTop += top - box.top;
    else if (bottom > box.bottom) list.scrollTop += bottom - box.bottom;
  }

  /** Play goes from the end of one run to that of the next; from now it begins anew. */
  const play = document.getElementById('play');
  function stop() {
    playing = false;
    play.textContent = 'Play';
    play.setAttribute('aria-pressed', 'false');
  }
  play.addEventListener('click', () => {
    if (playing) {
      clearTimeout(timer);
      stop();
      return;
    }
    playing = true;
    play.textContent = 'Stop';
    play.setAttribute('aria-pressed', 'true');
    const { seq, headSeq } = moment.querySelector('.moment-bar')?.dataset ?? {};
    show({ seq: seq === headSeq ? 0 : seq, step: 'next' });
  });
  play.hidden = range.max === '0' || matchMedia('(prefers-reduced-motion: reduce)').matches;

  range.disabled = false;
  range.addEventListener('input', () => {
    stop();
    number.value = range.value;
    clearTimeout(timer);
    timer = setTimeout(() => show({ seq: range.value }), WAIT_MILLISECONDS);
  });
  // The slider lies over the strip, so that it says in its place who wrote what the pointer is at.
  const stretches = Array.from(page.querySelectorAll('.stretch'));
  range.addEventListener('pointermove', (event) => {
    const box = page.querySelector('.strip-drawing').getBoundingClientRect();
    const seq = Math.ceil(((event.clientX - box.left) / box.width) * Number(range.max));
    const stretch = stretches.find(({ dataset }) => seq <= Number(dataset.seq)) ?? stretches.at(-1);
    range.title = stretch?.querySelector('title').textContent ?? '';
  });
  number.form.addEventListener('submit', (event) => {
    event.preventDefault();
    stop();
    show({ seq: number.value });
  });
  time.form.addEventListener('submit', (event) => {
    event.preventDefault();
    stop();
    show({ at: time.value });
  });
  page.addEventListener('submit', (event) => {
    if (!event.target.matches('form[data-view]')) return;
    event.preventDefault();
    stop();
    const url = new URL(event.target.action);
    url.search = new URLSearchParams(new FormData(event.target));
    open(url);
  });
  page.addEventListener('click', (event) => {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest('a[data-seq], a[data-step], a[data-view]');
    if (!link) return;
    event.preventDefault();
    stop();
    if (link.dataset.seq) show({ seq: link.dataset.seq });
    else if (link.dataset.step) show({ seq: moment.querySelector('.moment-bar').dataset.seq, step: link.dataset.step });
    else open(new URL(link.href)).then(() => moment.querySelector('.view-tab[aria-current]')?.focus());
  });
  mark(Number(number.value));
})();
