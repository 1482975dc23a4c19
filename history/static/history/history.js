// The slider of the history page: moving it shows the document as it was, without loading the page anew.
// The server renders every moment (`?part=moment`), so that what a document holds is escaped in one place only.
'use strict';

(() => {
  const page = document.querySelector('.history[data-page-url]');
  if (!page) return;
  const WAIT_MILLISECONDS = 120;
  const range = document.getElementById('seq-range');
  const number = document.getElementById('seq-number');
  const time = document.getElementById('at');
  const moment = document.getElementById('moment');
  const pageUrl = page.dataset.pageUrl;
  let timer = 0;
  let running = new AbortController();

  /** The address of a moment that keeps the page of runs. */
  function address(query) {
    const url = new URL(pageUrl, location.href);
    const before = new URLSearchParams(location.search).get('before');
    if (before) url.searchParams.set('before', before);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url;
  }

  function show(query) {
    clearTimeout(timer);
    running.abort();
    running = new AbortController();
    load(address({ ...query, part: 'moment' }), running.signal).catch((error) => {
      if (error.name === 'AbortError') return;
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
      tell(answer.status === 404 ? 'You may no longer see this document.' : 'This could not be loaded. Load the page again.');
      return;
    }
    moment.replaceChildren(...document.adoptNode(parts.body).childNodes);
    moment.removeAttribute('aria-busy');
    if (shown.classList.contains('moment-bar')) arrived(shown.dataset);
  }

  function arrived({ seq, headSeq, at }) {
    range.max = number.max = headSeq;
    range.value = number.value = seq;
    time.value = at;
    mark(Number(seq));
    history.replaceState(null, '', address({ seq }));
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
  }

  range.disabled = false;
  range.addEventListener('input', () => {
    number.value = range.value;
    clearTimeout(timer);
    timer = setTimeout(() => show({ seq: range.value }), WAIT_MILLISECONDS);
  });
  number.form.addEventListener('submit', (event) => {
    event.preventDefault();
    show({ seq: number.value });
  });
  time.form.addEventListener('submit', (event) => {
    event.preventDefault();
    show({ at: time.value });
  });
  page.addEventListener('click', (event) => {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest('a[data-seq], a[data-step]');
    if (!link) return;
    event.preventDefault();
    if (link.dataset.seq) show({ seq: link.dataset.seq });
    else show({ seq: moment.querySelector('.moment-bar').dataset.seq, step: link.dataset.step });
  });
  mark(Number(number.value));
})();
