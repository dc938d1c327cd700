for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const head = button.closest('th'), body = head.closest('table').tBodies[0]
  const column = [...head.parentNode.children].indexOf(head)
  const down = head.getAttribute('aria-sort') === 'ascending'
  for (const other of head.parentNode.children) other.removeAttribute('aria-sort')
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending')
  const key = row => row.children[column].dataset.value ?? row.children[column].textContent
  const compare = (a, b) => {
    if (a === '' || b === '') return (a === '') - (b === '') || 0
    const sign = down ? -1 : 1, difference = Number(a) - Number(b)
    return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference)
  }
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))))
})
