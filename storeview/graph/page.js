(function () {
  'use strict';
  var info = document.getElementById('info');
  var idle = info.textContent;
  var lit = [];
  function clear() {
    lit.forEach(function (e) { e.classList.remove('on'); });
    lit = [];
  }
  function show(e) {
    clear();
    var piece = e.target.closest('[data-layer]');
    if (!piece) { info.textContent = idle; return; }
    var n = piece.getAttribute('data-layer');
    if (n !== '0') {
      lit = Array.prototype.slice.call(document.querySelectorAll('[data-layer="' + n + '"]'));
      lit.forEach(function (x) { x.classList.add('on'); });
    }
    info.textContent = piece.getAttribute('data-detail') || idle;
  }
  document.addEventListener('pointerover', show);
  document.addEventListener('focusin', show);
})();
